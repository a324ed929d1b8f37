"""Postal addresses: a street with its number, and the parts of an address that stand by it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from openmaas.redaction.cues import around_digits
from openmaas.redaction.detectors.words import ARABIC, CAPITAL, HAN
from openmaas.redaction.entity import NAMED, Entity
from openmaas.redaction.policy import Kind


def _either(words: str) -> str:
    every = sorted(words.split(), key=len, reverse=True)
    return "|".join(re.escape(one).replace("_", " ") for one in every)


# Behind names, with spaces, in English: publication 28 of the US Postal Service, and Britain's.
_SURE = _either(
    "Street St St. Road Rd Rd. Avenue Ave Ave. Lane Ln Ln. Drive Dr Dr. Boulevard Blvd Blvd. Court"
    " Ct Ct. Close Terrace Crescent Parkway Pkwy Highway Hwy Turnpike Square Sq Place Pl Way Mews"
)
_ENGLISH = _either(
    "Alley Annex Arcade Avenue Ave Ave. Bayou Beach Bend Bluff Bottom Boulevard Blvd Blvd. Branch"
    " Bridge Brook Burg Bypass Camp Canyon Cape Causeway Center Centre Chase Circle Cir Cliff Close"
    " Club Common Corner Course Court Ct Ct. Courts Cove Creek Crescent Crest Crossing Crossroad"
    " Curve Dale Dam Divide Drive Dr Dr. Estate Expressway Extension Fall Falls Ferry Field Flat"
    " Ford Forest Forge Fork Fort Freeway Garden Gardens Gateway Glen Green Grove Harbor Haven"
    " Heights Highway Hwy Hill Hollow Inlet Island Isle Junction Key Knoll Lake Land Landing Lane"
    " Ln Ln. Light Loaf Lock Lodge Loop Mall Manor Meadow Meadows Mews Mill Mission Motorway Mount"
    " Mountain Neck Orchard Oval Overpass Parade Park Parkway Pkwy Pass Passage Path Pike Pine"
    " Pines"
    " Place Pl Plain Plaza Point Port Prairie Radial Ramp Ranch Rapid Rest Ridge River Road Rd Rd."
    " Roads Route Row Rue Run Shoal Shore Skyway Spring Springs Spur Square Sq Station Stravenue"
    " Stream Street St St. Summit Terrace Throughway Trace Track Trafficway Trail Tunnel Turnpike"
    " Underpass Union Valley Via Viaduct View Views Village Ville Vista Walk Wall Way Well Wells"
    " Wharf Yard"
)
# At the end of one word, with the number behind it.
_COMPOUND = _either(
    "straße strasse str. weg platz allee gasse chaussee promenade pfad"
    " straat laan plein gracht kade steeg dijk singel dreef boulevard"
    " gatan vägen torget stigen gränd gade vej allé veien katu kuja"
)
# The same, but also the ends of names of towns and other things.
_PERHAPS = _either(
    "str ring damm ufer berg graben steig markt stieg kamp hof winkel pad baan dam wal wijk park"
    " väg backen gate vei tie"
)
# Before names.
_TYPES = _either(
    "rue avenue av. av boulevard bd bd. allée allee place chemin impasse quai route cours passage"
    " square sentier faubourg esplanade hameau lotissement résidence"
    " calle c/ c. vial pasadizo avenida avda. avda plaza pza. paseo camino carretera ronda rambla"
    " pasaje callejón"
    " vía glorieta urbanización cuesta acceso alameda cañada travesía"
    " via viale piazza p.zza piazzale corso vicolo largo strada stretto borgo contrada canale"
    " incrocio rotonda lungomare"
    " rua r. travessa praça estrada rodovia vila viela ladeira quadra setor parque loteamento"
    " fazenda condomínio distrito favela jardim núcleo passarela pátio recanto residencial sítio"
    " trecho trevo vale vereda viaduto aeroporto área campo chácara colônia conjunto estação feira"
    " lagoa lago morro praia esplanada ladeira marina mirante"
    " ul. ul ulica ulicy al. aleja alei aleje pl. pl plac placu os. osiedle osiedlu rondo"
)
_SMALL = (
    r"(?:de|del|della|delle|dei|degli|di|da|do|dos|das|du|des|d'|la|le|les|los|las|el|l'|der|den"
    r"|dem|von|van|zu|y|e|i|et|of|the|św\.|ks\.|gen\.|dr|nad|am|im|in|sur|sous|en|aan|op|ter|ten"
    r"|'t)"
)
_CAP = rf"(?:'[st][- ])?{CAPITAL}\w*(?:[.]?['-]\w+)*"
_NAME = rf"{_CAP}\.?(?:[ -](?:{_SMALL} ){{0,3}}{_CAP}){{0,3}}"
_HOUSE = r"\d{1,5}(?: ?(?:bis|ter|quater|[A-Za-z])(?!\w))?(?:[-/] ?\d{1,5}[A-Za-z]?)?(?!\w|[.,]\d)"

_STREETS = (
    # 12 High Street, 350 Fifth Ave.
    rf"{_HOUSE},? (?:[NSEW]\.? |(?:North|South|East|West) )?(?:{_CAP} |\d{{1,3}}(?:st|nd|rd|th)"
    rf" ){{1,4}}?(?:{_SURE})(?!\w)(?: [NSEW]{{1,2}}(?!\w))?",
    rf"{_HOUSE} (?:Broadway|{_CAP}(?:straat|street))(?!\w)",
    # Hauptstraße 5, Am Markt 3, Prinsengracht 12
    rf"(?:{CAPITAL}\w*(?:[ -]{CAPITAL}\w*){{0,3}}[ -])?(?:{CAPITAL}\w*?(?:{_COMPOUND})|(?<=["
    rf" -])(?:Straße|Strasse|Str\.|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer|Markt)) ?{_HOUSE}",
    # 5, rue de la Paix
    rf"{_HOUSE},? (?i:{_TYPES}) (?:{_SMALL} ?){{0,3}}{_NAME}",
    # Calle Mayor 5, ul. Długa 7/9, Rua das Flores, 12
    rf"(?<![^\W_])(?i:{_TYPES}) ?(?:{_SMALL} ?){{0,3}}{_NAME},? ?(?:n[°º.]? ?|nº ?|núm\. ?|number"
    rf" )?(?:{_HOUSE}|s/n)",
    r"P\.? ?O\.? Box \d{1,6}",
    r"(?:Postfach|Postbus|Casella postale|Apartado|Skrytka pocztowa) [\d ]{1,8}\d",
    r"(?:Unit|PSC) \d{3,5},? Box \d{3,5}", rf"US(?:NS|S|NV|CGC) {_CAP}(?=\n|, )",
)  # fmt: skip
_STREET = re.compile(rf"(?<![\w#/.,-])(?<!\d )(?:{'|'.join(_STREETS)})")
# What is a street only if a postal code follows, or a unit stands before it.
_NAMED_STREET = re.compile(
    rf"(?<![\w/-])(?:"
    rf"{_HOUSE},? (?:[NSEW]\.? )?(?:{_CAP} ){{1,4}}?(?:{_ENGLISH})s?(?!\w)(?: [NSEW]{{1,2}}(?!\w))?"
    rf"|{CAPITAL}\w*(?:[ -]{CAPITAL}\w*){{0,2}}?(?:{_PERHAPS}) {_HOUSE}"
    rf"|(?:Am|An der|An den|Im|In der|In den|Auf der|Auf dem|Zum|Zur|Unter den) {_CAP} {_HOUSE}"
    rf"|(?:{_CAP} ){{1,3}}(?:{_ENGLISH})s?(?!\w)|(?i:{_TYPES}) (?:{_SMALL} ?){{0,3}}{_NAME}"
    rf"|{CAPITAL}\w*(?:{_COMPOUND})(?!\w))(?= ?(?:,|\n| (?:Apt|Suite|Unit)))"
)
_UNIT = (
    r"(?:Apartment|Apt\.?|Suite|Ste\.?|Unit|Flat|Studio|Floor|Fl\.?|Room|Rm\.?|#|Appartement"
    r"|Appt\.?|Bât\.?|Bâtiment|Étage|étage"
    r"|Piso|Puerta|Apartamento|Apto\.?|Ap\.?|Bloco|Sala|Casa|Lote|Interno|Scala|Piano"
    r"|Appartamento|m\.|lok\.|Wohnung|Whg\.?|Etage"
    r"|Lägenhet|lgh|bus|Local|Esc\.|Bajo|Planta|Dpto\.?)"
    r" ?[\w-]{1,6}"
)
_BEFORE = re.compile(rf"(?<!\w){_UNIT}(?:, ?|,? ?\n)$")
_BREAK = r"(?: ?,? ?\n ?| ?, ?| - | )"
_CITY = rf"{_CAP}(?:[ -](?:{_SMALL} ?){{0,3}}{_CAP}){{0,3}}(?: ?\([A-Z][\w ]{{1,12}}\))?"
_POSTAL = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}|[A-Z]{1,2}\d{1,2}[A-Z]? \d[A-Z]{2}"  # GB
    r"|(?:D-|A-|CH-|F-|B-|NL-|L-)?\d{5}(?:-\d{4})?|\d{5}-\d{3}|\d{8}|\d\d-\d{3}|\d{4} ?[A-Z]{2}"
    r"|\d{3} \d\d|[A-Z]\d[A-Z] ?\d[A-Z]\d|(?:CH-|A-|B-)?\d{4})"
    r"(?![\w]|[.,-]\d)"
)
_COUNTRY = _either(
    "USA U.S.A. US United_States United_Kingdom UK England Scotland Wales Ireland Germany"
    " Deutschland Österreich Austria Schweiz Switzerland France España Spain Italia Italy Nederland"
    " Netherlands België Belgique Belgium Polska Poland Portugal Brasil Brazil México Canada"
    " Australia Sverige Danmark Norge Suomi Türkiye India"
)
_STATE = (
    r"(?:A[AEKLPRSZ]|C[AOT]|D[CE]|F[LM]|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEHINOPST]|N[CDEHJMVY]|O[HKR]"
    r"|P[ARW]|RI|S[CD]|T[NX]|UT|V[AIT]|W[AIVY]|NSW|VIC|QLD|TAS|ACT|ON|BC|QC)"
)
_WORD = re.compile(r"[^\W\d_]{2,}")
_SHORT = re.compile(
    rf"(?<!\w)(?:[Cc]/|[CRcr]\."
    rf"|(?:[Aa]l|[Uu]l|[Pp]l|[Oo]s|[Aa]v|[Bb]d)\.?) ?(?:{_SMALL} )?{CAPITAL}"
)
_LOWER = frozenset(one for one in _WORD.findall(_TYPES.replace("\\", "")) if len(one) > 2)
_CAPITALISED = _LOWER.union(
    _WORD.findall(f"{_SURE} {_ENGLISH}".lower().replace("\\", "")),
    "straße strasse broadway box postfach postbus postale apartado pocztowa am an auf im zum zur"
    " unter usnv usns uss uscgc".split(),
)
_STREET_ENDS = tuple(_WORD.findall(f"{_COMPOUND} {_PERHAPS}".replace("\\", "")))
# A part that may follow a street, from the most telling.
_AFTER = (
    rf"{_UNIT}(?![\w])",
    rf"(?:{_SMALL} ){{0,2}}{_CITY} ?/ ?[A-Z]{{2}}(?!\w)",
    rf"{_CITY},? (?:{_STATE}|[A-Z]{{2}}) \d{{5}}(?:-\d{{4}})?(?!\d)",
    r"(?:DPO|FPO|APO),? A[AEP] \d{5}",
    rf"{_POSTAL}{_BREAK}{_CITY}(?: ?/ ?[A-Z]{{2}}(?!\w))?",
    rf"{_CITY}{_BREAK}{_POSTAL}",
    rf"{_POSTAL}",
    rf"{_CITY}(?=(?: ?,? ?\n ?| ?, ?)(?:{_CITY}(?: ?,? ?\n ?| ?, ?| ))?{_POSTAL})",
    rf"[^\n,;:!?]{{1,40}}(?=(?: ?\n ?| ?, ?){_POSTAL})",
    rf"(?:{_STATE})(?![\w])",
    rf"(?:{_COUNTRY})(?!\w)",
    rf"{_CITY}(?: ?/ ?[A-Z]{{2}})?(?= ?(?:[.,;:!?)\n]|$))",
)
_PART = [re.compile(rf"(?:{_BREAK}){part}") for part in _AFTER[:7]] + [
    re.compile(rf"(?: ?,? ?\n ?| ?, ?){part}") for part in _AFTER[7:]
]
_POSTAL_PARTS = _PART[1:7]
_HAS_POSTAL = re.compile(_POSTAL)
_MOST_PARTS = 6
_REACH = 90  # characters from the first digit of an address to its street's name

# ---- Chinese
_HAN = "[\u4e00-\u9fff]"
_PROVINCES = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州"
    "|云南|陕西|甘肃|青海|台湾|內蒙古|内蒙古|广西|西藏|宁夏|新疆|香港|澳门|台北|臺北"
)
_CHINESE = re.compile(
    rf"(?:(?:{_PROVINCES})(?:省|市|(?:壮族|回族|维吾尔)?自治区|特别行政区)?|{_HAN}{{2,4}}?市)"
    rf"(?:{_HAN}{{1,7}}?(?:市|州|盟|地区))?(?:{_HAN}{{1,6}}?(?:区|县|旗))?"
    rf"(?:{_HAN}{{1,8}}?(?:镇|乡|街道|村))?"
    rf"(?:[{_HAN[1:-1]}\d]{{1,10}}?(?:路|街|大道|大街|巷|弄|胡同|道|里|村|园|苑|小区)){{1,3}}"
    "(?:[东南西北中]段)?"
    r"(?:第? ?[\dA-Za-z一二三四五六七八九十]{1,6} ?"
    r"(?:号楼|号院|号|弄|栋|幢|座|楼|单元|层|室|房|巷)){0,5}"
    r"(?:[ ,，]{0,2}\d{6}(?!\d))?"
)
_CHINESE_DOOR = re.compile(r"\d|[A-Za-z]座|号")
_CHINESE_LEAD = re.compile(
    "^(?:.*?(?:住在|居住在|居住于|位于|搬到|寄到|寄往|送到|地址是|地址为|地址|现居|家在|来到|住址|住|在|到|至))(?=.{2,4}市)"
)

# ---- Arabic
_AR = "[\u0621-\u064a]"
_ARABIC_WORD = (
    rf"(?!(?:في|من|إلى|على|عن|هو|هي|وهو|وهي|كان|كانت|ثم|أو|لأن|منذ|حيث|قرب|بعد|قبل"
    rf"|و)(?!{_AR})){_AR}+"
)
_ARABIC_LINK = "(?:بن|ابن|آل|أبو|ابو|أبا|أبي|عبد|أم)"
_ARABIC_TYPE = (
    "شارع|الشارع|طريق|حي|ميدان|زقاق|درب|مبنى|بناية|عمارة|شقة|فيلا|جادة|نهج|حارة|منطقة|برج|ساحة"
    "|كورنيش|زنقة|إقامة|صندوق بريد|ص\\.ب\\.?|ص\\. ?ب\\.?"
)
_ARABIC = re.compile(
    rf"(?:(?<!\d)\d{{1,5}} ?[،,]? ?)?(?<!{_AR})[وبفل]?(?:{_ARABIC_TYPE})(?: (?:رقم )?\d{{1,6}}"
    rf"|(?: (?:{_ARABIC_LINK} ){{0,2}}{_ARABIC_WORD}){{1,3}})(?: (?:رقم )?\d{{1,5}}(?!\d))?"
    rf"(?: ?[،,\n-] ?(?:(?:{_ARABIC_TYPE}|الدور|الطابق|رقم|مدينة|ص)(?: (?:رقم )?\d{{1,6}}|(?:"
    rf" {_ARABIC_WORD}){{1,3}})(?: \d{{1,5}}(?!\d))?|{_ARABIC_WORD}(?: {_ARABIC_WORD})?"
    rf" \d{{5}}(?!\d)|{_ARABIC_WORD}(?: {_ARABIC_WORD})?(?= ?(?:[،,.\n؛؟!-]|$))"
    rf"|\d{{5}}(?!\d))){{0,5}}"
)
_ARABIC_STREET = re.compile("شارع|طريق|حي |ميدان|جادة|نهج|زنقة|ص\\.|صندوق|ساحة")


class Addresses:
    kinds: tuple[Kind, ...] = ("address",)

    def find(self, text: str) -> Iterable[Entity]:
        for start, end in self._western(text):
            yield Entity(start, end, "address", NAMED)
        for found in _CHINESE.finditer(text) if HAN.search(text) else ():
            if _CHINESE_DOOR.search(found[0]):
                lead = _CHINESE_LEAD.match(found[0])
                start = found.start() + (lead.end() if lead else 0)
                yield Entity(start, found.end(), "address", NAMED)
        for found in _ARABIC.finditer(text) if ARABIC.search(text) else ():
            if _ARABIC_STREET.search(found[0]) and re.search(r"\d|[،,]|شارع", found[0]):
                yield Entity(found.start(), found.end(), "address", NAMED)

    def _western(self, text: str) -> Iterator[tuple[int, int]]:
        last = 0
        for since, until in around_digits(text, _REACH):
            if not _names_street(text[since:until]):
                continue
            for found in _STREET.finditer(text, since, until):
                if found.start() >= last:
                    last = _extended(text, found.end())[0]
                    yield _begun(text, found.start()), last
            for found in _NAMED_STREET.finditer(text, since, until):
                start = _begun(text, found.start())
                end, has_postal = _extended(text, found.end())
                if has_postal or (start < found.start() and end > found.end()):
                    yield start, end


def _names_street(text: str) -> bool:
    """Whether any word can be of a street: far faster than to look for one."""
    if _SHORT.search(text):
        return True
    for word in _WORD.findall(text):
        if word[0].isupper():
            plain = word.lower()
            if plain in _CAPITALISED or plain.removesuffix("s") in _CAPITALISED:
                return True
            if plain.endswith(_STREET_ENDS):
                return True
        elif word in _LOWER:
            return True
    return False


def _begun(text: str, start: int) -> int:
    """Where the address of a street begins: with its flat, if that is named first."""
    unit = _BEFORE.search(text, max(0, start - 24), start)
    return unit.start() if unit else start


def _extended(text: str, end: int) -> tuple[int, bool]:
    """Where the address of a street ends, and whether it has a postal code."""
    has_postal = False
    for _ in range(_MOST_PARTS):
        for part in _PART:
            found = part.match(text, end)
            if found:
                break
        else:
            break
        end = found.end()
        if part in _POSTAL_PARTS and _HAS_POSTAL.search(found[0]):
            has_postal = True
    return end, has_postal
