"""What is found in a text, and which of several holds where they overlap."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from openmaas.errors import InvalidRequest
from openmaas.redaction import detectors
from openmaas.redaction.entity import CHECKED, NAMED, SHAPED, Entity
from openmaas.redaction.finder import finder
from openmaas.redaction.folding import Folded
from openmaas.redaction.merging import merged
from openmaas.redaction.policy import KINDS, RedactionPolicy

ALL = RedactionPolicy(action="hide")


def found(text: str, policy: RedactionPolicy = ALL) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in finder(policy).find(text)]


@pytest.mark.parametrize(
    ("text", "kind", "thing"),
    [
        ("Write to ann.lee+x@mail.example.org.", "email", "ann.lee+x@mail.example.org"),
        ("邮箱是wang@example.cn，谢谢", "email", "wang@example.cn"),
        ("Call +49 30 1234567 now", "phone", "+49 30 1234567"),
        ("اتصل على الهاتف ٠٥٠١٢٣٤٥٦٧ مساء", "phone", "٠٥٠١٢٣٤٥٦٧"),
        ("手机号１３８００１３８０００。", "phone", "１３８００１３８０００"),
        ("Visa 4111-1111-1111-1111, 03/29", "credit_card", "4111-1111-1111-1111"),
        ("IBAN gb82 west 1234 5698 7654 32 in London", "iban", "gb82 west 1234 5698 7654 32"),
        ("SSN 078-05-1121", "national_id", "078-05-1121"),
        ("his PESEL is 44051401359", "national_id", "44051401359"),
        ("CPF 529.982.247-25", "national_id", "529.982.247-25"),
        ("身份证号11010519491231002X。", "national_id", "11010519491231002X"),
        ("burgerservicenummer 111222333", "national_id", "111222333"),
        ("codice fiscale RSSMRA85T10A562S", "national_id", "RSSMRA85T10A562S"),
        ("from 2001:db8::8a2e:370:7334 at", "ip_address", "2001:db8::8a2e:370:7334"),
        ("host 10.0.0.17 is down", "ip_address", "10.0.0.17"),
        ("00-1A-2B-3C-4D-5E", "mac_address", "00-1A-2B-3C-4D-5E"),
        ("key ghp_" + "a1" * 18, "secret", "ghp_" + "a1" * 18),
        ("our om-" + "aB3_" * 10 + "xyz", "secret", "om-" + "aB3_" * 10 + "xyz"),
        ("amqp://bob:s3cret@mq/x", "secret", "bob:s3cret"),
        ("born on 3 May 1975 in", "birth_date", "3 May 1975"),
        ("出生日期：1988年7月21日", "birth_date", "1988年7月21日"),
        ("تاريخ الميلاد: ١٩٩٠/٠٤/١٢", "birth_date", "١٩٩٠/٠٤/١٢"),
        ("at 10 Downing Street, London SW1A 2AA.", "address", "10 Downing Street, London SW1A 2AA"),
        ("寄到北京市海淀区中关村大街27号。", "address", "北京市海淀区中关村大街27号"),
        ("شارع الملك فهد، حي العليا، الرياض 12345", "address",
        "شارع الملك فهد، حي العليا، الرياض 12345"),
        ("My name is Zorblax Quuxley.", "person", "Zorblax Quuxley"),
        ("yesterday Maria Schneider left", "person", "Maria Schneider"),
        ("我叫王小明，你好", "person", "王小明"),
        ("اسمي مُحَمَّد بن سلمان", "person", "مُحَمَّد بن سلمان"),
    ],
)  # fmt: skip
def test_each_kind_is_found_in_its_place(text: str, kind: str, thing: str) -> None:
    assert (kind, thing) in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "Release 4.12.3 of 2024-05-06 closes #1234567 and costs £1,250,000.",
        "ISBN 978-3-16-148410-0, order 20240506123, 52.5200, 13.4050",
        "git@github.com:a/b.git, icon@2x.png, a::b, 12:30:45, std::vector",
        "version 1.2.3.4 was installed on 3 May 1975",
        "The White House said on Monday that New York and Real Madrid agree.",
        "Dear Sir or Madam, Kind Regards, The Team",
        "4111 1111 1111 1112 and GB82 WEST 1234 5698 7654 33",
    ],
)
def test_what_looks_alike_is_left(text: str) -> None:
    assert found(text) == []


def test_only_the_kinds_of_the_policy_are_looked_for() -> None:
    text = "ann@example.org, 4111 1111 1111 1111, Maria Schneider"
    policy = RedactionPolicy(action="hide", kinds=("credit_card",))
    assert found(text, policy) == [("credit_card", "4111 1111 1111 1111")]
    assert found(text, RedactionPolicy(action="hide", kinds=())) == []


def test_what_is_not_seen_hides_nothing() -> None:
    text = "ann\u200b@exam\u00adple.org"
    assert found(text) == [("email", text)]
    decomposed = "yesterday Jose\u0301 Garci\u0301a left"
    assert found(decomposed) == [("person", "Jose\u0301 Garci\u0301a")]


def test_of_overlapping_ones_the_most_certain_holds_then_the_longest() -> None:
    text = "x" * 40
    name, short = Entity(0, 30, "person", NAMED), Entity(2, 6, "email", SHAPED)
    form, sure = Entity(2, 20, "phone", SHAPED), Entity(10, 18, "iban", CHECKED)
    assert merged(text, [form, sure]) == [Entity(2, 10, "phone", SHAPED), sure]
    assert merged(text, [short, form]) == [form]
    # Nothing is let out where it sticks out, but two letters.
    assert merged(text, [name, sure]) == [
        Entity(0, 10, "person", NAMED), sure, Entity(18, 30, "person", NAMED),
    ]  # fmt: skip


def test_a_models_entities_are_taken_in_but_beat_no_check_digits() -> None:
    text = "pay 4111 1111 1111 1111 to Zzyzx"
    more = [
        Entity(4, 23, "phone", 1.0),
        Entity(27, 32, "person", 0.99),
        Entity(0, 99, "email", 1.0),
    ]
    kinds = [(one.kind, text[one.start : one.end]) for one in finder(ALL).find(text, more)]
    assert kinds == [("credit_card", "4111 1111 1111 1111"), ("person", "Zzyzx")]


# ---- tenants' own


def test_own_expressions_and_words() -> None:
    policy = RedactionPolicy(
        action="hide",
        patterns={"badge": r"B-\d{4}"},
        words={"project": ("Blue Falcon", "blue", "天狼计划"), "drug": ("Ibuprofen",)},
    )
    text = "b-1 B-1234 BLUE  falcon, bluebird blue 用天狼计划吧 ibuprofen"
    assert found(text, policy) == [
        ("badge", "B-1234"), ("project", "BLUE  falcon"), ("project", "blue"),
        ("project", "天狼计划"), ("drug", "ibuprofen"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "expression", ["(", "a*", r"(?R)x", r"x(?1)(a)", r"(x+x+)+y", r"(\w+\s?)*$x"]
)
def test_bad_and_dangerous_expressions_are_refused(expression: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        finder(RedactionPolicy(action="hide", patterns={"mine": expression}))
    assert refused.value.param == "redaction"
    assert expression not in refused.value.message


def test_an_expression_that_is_slow_on_one_text_lets_it_not_pass() -> None:
    # Slow only where both of its parts occur, which the texts it is tried on do not have.
    policy = RedactionPolicy(action="hide", patterns={"mine": r"qz(?:[a-c]+[b-d]+)+qw"})
    assert found("qzabcdqw", policy) == [("mine", "qzabcdqw")]
    with pytest.raises(InvalidRequest, match="takes too long"):
        finder(policy).find("qz" + "bc" * 5000)


def test_a_finder_is_made_once_for_equal_policies() -> None:
    one = RedactionPolicy(action="hide", words={"a": ("b",)})
    other = RedactionPolicy(action="block", words={"a": ("b",)})
    assert finder(one) is finder(other)
    assert finder(one) is not finder(RedactionPolicy(action="hide"))


# ---- cost


UNITS = (
    "a", "1", "A", "Aa ", "1 ", "-", "\n", "@", "a@", "1.", "A1", "<", "王", "街", "محمد ",
    "بن ", "شارع ",
    "eyJ", "sk-a1", "://a:", "+49 1", "Main St ", "12 Ann St, ", "A.",
    "-----BEGIN RSA PRIVATE KEY-----a",
    "北京市", "password=a1", "::", "0:", "1, ", "rue de ", "1/", "born 1.1.", "name: A",
    "Anna Le ",
    "12345 ", "e\u0301", "SW1A 1AA ", "DE12 3", "0a:", "Aaaweg 1, ",
)  # fmt: skip


@pytest.mark.parametrize("detector", detectors.of(KINDS), ids=lambda one: type(one).__name__)
def test_no_text_takes_more_than_its_length(detector: detectors.Detector) -> None:
    """What tried every pair of 40,000 places would take ten seconds and more of the process's own
    time for one text; what looks at each place takes some hundredths."""
    for unit in UNITS:
        text = Folded(unit * (40_000 // len(unit))).text
        began = time.process_time()
        for _ in detector.find(text):
            pass
        assert time.process_time() - began < 5, unit


def test_a_policy_that_looks_for_nothing_loads_nothing() -> None:
    script = (
        "import sys, openmaas.redaction.policy, openmaas.redaction.finder;"
        "print(*[name for name in ('phonenumbers', 'stdnum', 'openmaas.redaction.detectors.names')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
