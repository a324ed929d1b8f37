"""Answers come out the same however they are cut, and nothing waits longer than it must."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmaas.errors import PersonalData
from openmaas.redaction.finder import Finder, finder
from openmaas.redaction.outgoing import Outgoing
from openmaas.redaction.policy import Action, RedactionPolicy
from openmaas.redaction.segments import LONGEST_RUN, LONGEST_WORD
from openmaas.redaction.vault import Vault

POLICY = RedactionPolicy(action="hide", words={"project": ("blue falcon", "天狼计划")})
FINDER = finder(POLICY)
EXPRESSIVE = finder(RedactionPolicy(action="hide", patterns={"badge": r"b \d{2}-\d"}))

PROMPT = (
    "Ann Lee <ann.lee@example.org> asks 王小明 (手机 13800138000) and مُحَمَّد بن سلمان about "
    "GB82 WEST 1234 5698 7654 32, 10 Downing Street, London SW1A 2AA; born on 3 May 1975. 👩‍👩‍👧"
    " Jose\u0301"
)
PIECES = [
    "<PERSON_1>", "< person_1 >", "PERSON_2", "<PERSON_99>", "&lt;EMAIL_1&gt;", "<EMA",
    "IL_1>", "«IBAN 1»",
    "<PHONE_١>", "<ADDRESS_1>", "\\u003cBIRTH_DATE_1\\u003e", "bob@made.up.org",
    "Maria Schneider", " and ",
    "the plan was ", ". ", "\n\n", "\n", " ", ", ", "+44 20 7946 0958",
    "DE89 3704 0044 0532 0130 00",
    "4111 1111 1111 1111", "12 High Street, Leeds LS1 4AP", "我叫李小龙，",
    "北京市海淀区中关村大街27号", "手机号13912345678。",
    "اسمي خالد بن الوليد، ", "شارع الملك فهد، الرياض 12345", "👩‍👩‍👧", "🇩🇪", "é", "e\u0301",
    "\u200b", "\ufffc",
    "blue falcon", "天狼计划", "b 12-3", "Dear ", "My name is ", "born on 12 March 1980",
    "rue de la Paix 5, 75002 Paris",
    "x" * 60, "Aa " * 120,
    f"-----BEGIN PRIVATE KEY-----\nMIIE{'A' * 400}\n-----END PRIVATE KEY-----",
    "ghp_" + "a1" * 18, "https://bob:pw12@example.org/", "Ann", " Lee", "<", ">", "&", "\\",
    "1", "it's", "LONDON ",
]  # fmt: skip


def vault() -> Vault:
    made = Vault()
    made.hide(PROMPT, FINDER.find(PROMPT))
    assert len(made) >= 7
    return made


VAULT = vault()


def sent(
    text: str, cuts: list[int], looks: Finder | None = FINDER, action: Action = "hide"
) -> tuple[list[str], Outgoing]:
    outgoing = Outgoing(VAULT, looks, action)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    parts = [outgoing.feed(text[a:b]) for a, b in itertools.pairwise(edges)]
    return [*parts, outgoing.end()], outgoing


def test_ten_thousand_cuts_change_nothing() -> None:
    rng = random.Random(8)
    for number in range(500):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 12)))
        looks = (FINDER, EXPRESSIVE, None)[number % 3]
        whole, outgoing = sent(text, [], looks)
        expected = "".join(whole)
        for _ in range(20):
            cuts = [rng.randrange(len(text) + 1) for _ in range(rng.randint(1, 12))]
            parts, other = sent(text, cuts, looks)
            assert "".join(parts) == expected
            assert other.found == outgoing.found
        if number % 10 == 0:
            assert "".join(sent(text, list(range(len(text))), looks)[0]) == expected


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=120), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_text_comes_out_the_same(text: str, cuts: list[int]) -> None:
    assert "".join(sent(text, cuts)[0]) == "".join(sent(text, [])[0])
    assert "".join(sent(text, cuts, None)[0]) == VAULT.restore(text)


def test_what_was_hidden_comes_back_byte_for_byte() -> None:
    told = Vault()
    hidden = told.hide(PROMPT, FINDER.find(PROMPT))
    assert hidden.encode() != PROMPT.encode()
    for size in (1, 2, 3, 7, 50, 1000):
        outgoing = Outgoing(told, FINDER, "hide")
        parts = [outgoing.feed(hidden[at : at + size]) for at in range(0, len(hidden), size)]
        assert ("".join(parts) + outgoing.end()).encode() == PROMPT.encode()
        assert not outgoing.found


def test_what_the_model_made_up_is_marked_and_numbered() -> None:
    text = (
        "Ask <PERSON_1>, Maria Schneider or bob@made.up.org and eve@made.up.org; again "
        "Bob@made.up.org, and ann.lee@example.org as it was."
    )
    parts, outgoing = sent(text, [20, 45])
    assert "".join(parts) == (
        "Ask Ann Lee, [PERSON_1] or [EMAIL_1] and [EMAIL_2]; again "
        "[EMAIL_1], and ann.lee@example.org as it was."
    )
    assert outgoing.found == {"person": 1, "email": 3}


def test_made_up_data_stops_an_answer_where_the_policy_says_so() -> None:
    outgoing = Outgoing(VAULT, FINDER, "block")
    assert outgoing.feed("it is <PERSON_1> who asked ") == "it is Ann Lee who asked "
    with pytest.raises(PersonalData) as refused:
        outgoing.feed("bob@made.up.org for it")
    assert "email" in refused.value.message
    assert "bob" not in refused.value.message


def test_a_report_counts_and_holds_nothing_back() -> None:
    text = "".join(PIECES)
    outgoing = Outgoing(Vault(), FINDER, "report")
    assert all(outgoing.feed(letter) == letter for letter in text)
    assert outgoing.end() == ""
    assert outgoing.found["email"] >= 1
    assert outgoing.found["person"] >= 1


def test_nothing_waits_but_what_may_be_unfinished() -> None:
    outgoing = Outgoing(VAULT, FINDER, "hide")
    assert outgoing.feed("the plan was good and ") == "the plan was good and "
    assert outgoing.feed("<PERS") == ""
    assert outgoing.feed("ON_1> was") == "Ann Lee "
    assert outgoing.feed(" a ") == "was a "
    assert outgoing.feed("< 3 was ") == "< 3 was "
    only_restores = Outgoing(VAULT, None, "hide")
    assert only_restores.feed("Maria Schneider said <") == "Maria Schneider said "
    assert only_restores.feed("b>") == "<b>"


@pytest.mark.parametrize("unit", ["Aa ", "王", "A1-", "1 ", "كتب ", "<PERS", "\n", "-----BEGIN "])
def test_what_waits_has_a_bound(unit: str) -> None:
    outgoing = Outgoing(VAULT, FINDER, "hide")
    given_in = out = 0
    most = 0
    for _ in range(4 * LONGEST_WORD // len(unit)):
        given_in += len(unit)
        out += len(outgoing.feed(unit))
        most = max(most, given_in - out)
    assert most <= 3 * LONGEST_WORD
    if unit in ("Aa ", "1 ", "كتب "):
        assert most <= 2 * LONGEST_RUN


def test_a_long_answer_in_one_piece_is_treated_as_in_many() -> None:
    text = ("Maria Schneider wrote that bob@made.up.org was away. " * 400) + "<PERSON_1>"
    whole = "".join(sent(text, [])[0])
    assert whole == ("[PERSON_1] wrote that [EMAIL_1] was away. " * 400) + "Ann Lee"
