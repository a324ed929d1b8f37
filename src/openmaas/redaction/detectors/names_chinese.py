"""Chinese names: a family name of a hundred-odd, one or two characters, and words beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from openmaas.redaction.entity import NAMED, Entity

_HAN = "\u4e00-\u9fff"
_COMPOUND = "欧阳|司马|上官|诸葛|慕容|令狐|皇甫|东方|尉迟|公孙|司徒|夏侯|歐陽|諸葛"
# By how many people have them; what is a common word too stands below, and needs a cue.
_FAMILY = (
    "王李张刘陈杨黄吴赵周徐孙朱胡林郭何罗郑梁谢宋唐许邓冯韩曹曾彭萧肖蔡潘董袁余叶蒋杜苏魏程吕丁沈姚卢傅钟姜崔谭廖范汪陆戴贾韦邱侯邹熊孟秦尹薛阎"
    "雷黎龚邵郝陶贺顾毛钱覃洪莫孔汤赖庞颜倪聂翟殷詹耿焦俞柳阮柯裴霍翁骆靳鲍喻祁蒲牟穆缪麦褚窦戚岑佟邬卞栾隋臧闵"
    "張劉陳楊黃吳趙孫鄭許鄧馮韓蕭蔣蘇呂盧鍾薑譚陸賈鄒閻賴龐顏聶"
)
_FAMILY_WORDS = (
    "马高于田任金石夏方白江段史龙万严武常温康施文牛樊葛邢安齐易乔伍庄章鲁岳申欧关兰左甘祝包宁尚符舒纪梅童凌毕单季涂成苗谷盛曲冉蓝路游辛管柴蒙华房滕"
    "屈饶解艾尤阳时农司卓古吉简车项连芦娄景党宫费卜冷晏席卫米柏宗瞿桂全应苟边姬师和仇商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝官封谈匡鞠惠荆乐冀郁"
    "胥南班储原栗燕楚鄢劳谌奚皮粟冼蔺楼盘满闻位厉伊仝区郜海阚花权强帅屠豆朴盖练廉禹井祖漆巴丰支卿国狄平计索宣晋相初门云容敬来扈晁芮都普阙浦"
    "马馬龍萬嚴溫莊葉"
)
_GIVEN = frozenset(
    "伟强磊洋勇军杰涛超明刚平辉鹏华飞鑫波斌宇浩凯健俊帆帅旭宁龙林欢佳阳建亮成峰国晨瑞志兵雷东博彬坤想岩杨文利楠红霞芳娜敏静秀英丽艳娟兰燕玲桂丹萍玉"
    "凤梅莉珍婷晶颖雪慧倩琴畅云洁柳淑春海冬荣莹琳欣香芝小金瑜花璐"
    "子涵轩梓雨欣怡思诗梦晓雅嘉家豪睿泽浩然天昊一诺晨曦萱妍彤悦心如若语嫣月星辰逸凡安琪可馨美惠珊珠翠娇媛薇蓉菲蕾薇茜芸苗苒菁蓓莲"
    "德福贵富祥庆生根树松柏山川河江湖清源水泉良善仁义礼智信忠孝廉正直毅恒立永长久世昌盛兴旺发达胜利民爱学书文武卫国栋梁才贤能宏伟雄威振威震"
    "少卿景然启航远航一鸣鸿钧哲翰霖锋钢铁铭锐钰锦银剑铎鑫亚男双全新光耀辉煌晖昕昭晟晗皓玮珂珺瑶琦琛璇瑾瑛蕙岚崇峻嵩岳峥嵘"
    "偉強軍傑濤剛輝鵬華飛賓寧龍歡陽亮國靜麗豔蘭鳳穎慶榮豪銘漢瑋維賢憲興興義聰誠遠廷芬芳玲貞琴蘭鳳珠雲卿娥雯萱穎妤涵詠彤蓁菲霏"
)
_NEVER = frozenset(
    "的了是在和与说住有我你他她它们这那个不也都就会要去来到于从把被给让对向请找将为以及但而或并等吗吧呢啊已曾先女电手邮地身今昨后前上下里外中其此每各某打寄写问答"
)

_ONE = f"(?:{_COMPOUND}|[{_FAMILY}])"
_ANY = f"(?:{_COMPOUND}|[{_FAMILY}{_FAMILY_WORDS}])"
_BEFORE = re.compile(
    "(?:我叫|名叫|叫做|姓名|名字|联系人|收件人|寄件人|收货人|经办人|负责人|申请人|投保人|签名|签字|作者|患者|病人|客户|顾客|员工|雇员|同事|用户|租户|房东|学生"
    "|亲爱的|尊敬的|此致|聯絡人|收件者|我是|朋友|邻居|丈夫|妻子|先生|女士|母亲|父亲|哥哥|姐姐|弟弟|妹妹|经理|医生|律师|老师|教授|主任|护士|记者|会计|秘书"
    "|被告|原告|证人|嫌疑人)(?:[:：是为叫]|叫做| ){0,3}"
    rf"(?P<name>{_ANY}[{_HAN}·]{{1,3}})"
)
_AFTER = re.compile(
    rf"(?P<name>{_ANY}[{_HAN}]{{1,2}}?)(?=先生|女士|小姐|太太|老师|教授|医生|大夫|博士|经理|同学|同志|律师|主任|院长|校长|师傅|阿姨|叔叔"
    "|(?:今天|昨天|明天|刚刚|已经|曾经|曾|也|就)?(?:说|表示|认为|告诉|写道|回答|出生|住在|居住|来自|毕业|签了|签署|打来|打电话|联系|预约|预订|订了|申请"
    "|投诉|提交|付款|购买|搬|主持|负责|陪同|接待|参加|担任|处理)"
    "|的(?:电话|手机|邮箱|地址|身份证|护照|生日|账户|账号|银行卡|信用卡|妻子|丈夫|儿子|女儿|母亲|父亲|病历|订单|密码|名字))"
)
_ALONE = re.compile(rf"(?P<name>{_ONE}[{_HAN}]{{1,2}})")
_EDGE = re.compile(rf"[^{_HAN}]|$")


class ChineseNames:
    def find(self, text: str) -> Iterable[Entity]:
        for found in _BEFORE.finditer(text):
            yield _entity(found, _length(found["name"]))
        for found in _AFTER.finditer(text):
            name = found["name"]
            if all(one in _GIVEN for one in _given(name)):
                yield _entity(found, len(name))
        for found in _ALONE.finditer(text):
            name, start = found["name"], found.start()
            given = _given(name)
            bounded = (start == 0 or _EDGE.match(text[start - 1])) and _EDGE.match(
                text, found.end()
            )
            if all(one in _GIVEN for one in given) and (len(given) == 2 or bounded):
                yield _entity(found, len(name))


def _given(name: str) -> str:
    return name[2:] if re.match(_COMPOUND, name) and len(name) > 2 else name[1:]


def _length(name: str) -> int:
    """How much of it is the name: a given name has one character, or two."""
    family = len(name) - len(_given(name))
    if "·" in name:
        return len(name)
    end = family + 1
    if (
        len(name) > end
        and name[end] not in _NEVER
        and (name[end] in _GIVEN or len(name) == end + 1)
    ):
        end += 1
    return end


def _entity(found: re.Match[str], length: int) -> Entity:
    return Entity(found.start("name"), found.start("name") + length, "person", NAMED)
