"""What was hidden, and how it comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmaas.errors import PayloadTooLarge
from openmaas.redaction.entity import Entity
from openmaas.redaction.finder import finder
from openmaas.redaction.policy import RedactionPolicy
from openmaas.redaction.vault import Vault

FINDER = finder(RedactionPolicy(action="hide"))


def entities(text: str, *things: tuple[str, str]) -> list[Entity]:
    found, last = [], 0
    for kind, thing in things:
        last = text.index(thing, last)
        found.append(Entity(last, last + len(thing), kind, 1.0))
        last += len(thing)
    return found


def hidden(vault: Vault, text: str, *things: tuple[str, str]) -> str:
    return vault.hide(text, entities(text, *things))


def test_the_same_thing_has_the_same_placeholder() -> None:
    vault = Vault()
    text = "Ann Lee, ANN  LEE, Bob; +49 30 123, +4930123"
    told = hidden(
        vault, text, ("person", "Ann Lee"), ("person", "ANN  LEE"), ("person", "Bob"),
        ("phone", "+49 30 123"), ("phone", "+4930123"),
    )  # fmt: skip
    assert told == "<PERSON_1>, <PERSON_1>, <PERSON_2>; <PHONE_1>, <PHONE_1>"
    assert vault.hidden == {"person": 3, "phone": 2}
    assert len(vault) == 3
    # In the next text of the conversation too; and it comes back as it was first written.
    assert hidden(vault, "bob again", ("person", "bob")) == "<PERSON_2> again"
    assert vault.restore("<PERSON_1> and <PHONE_1>") == "Ann Lee and +49 30 123"


@pytest.mark.parametrize(
    "form",
    [
        "<PERSON_1>", "<person_1>", "< Person_1 >", "<PERSON 1>", "<PERSON-1>", "<PERSON1>",
        "«PERSON_1»",
        "‹PERSON_1›", "〈PERSON_1〉", "《PERSON_1》", "＜PERSON_1＞", "<PERSON_١>",
        "<PERSON_１>", "&lt;PERSON_1&gt;",
        r"\u003cPERSON_1\u003e", r"<PERSON\_1>", r"\<PERSON_1\>", "PERSON_1",
    ],
)  # fmt: skip
def test_changed_placeholders_come_back(form: str) -> None:
    vault = Vault()
    hidden(vault, "Ann", ("person", "Ann"))
    assert vault.restore(f"to {form}, ok") == "to Ann, ok"


@pytest.mark.parametrize(
    "text",
    ["<PERSON_2>", "<PERSON_01>", "<PERSON_10>", "MY_PERSON_1", "PERSON_12", "person_1",
     "<EMAIL_1>",
     "<PERSON_1", "PERSON 1", "[Person 1]", "<PERSON_1.5>"],
)  # fmt: skip
def test_what_stands_for_nothing_stays(text: str) -> None:
    vault = Vault()
    hidden(vault, "Ann", ("person", "Ann"))
    assert vault.restore(text).replace("Ann", "PERSON_1") == text


def test_labels_with_underscores_and_digits() -> None:
    vault = Vault()
    told = hidden(vault, "a b c", ("credit_card", "a"), ("badge_2", "b"), ("badge", "c"))
    assert told == "<CREDIT_CARD_1> <BADGE_2_1> <BADGE_1>"
    assert vault.restore("<credit card 1> <Badge-2 1> BADGE_1 CREDIT_CARD_1") == "a b c a"


def test_a_placeholder_that_a_text_has_is_given_to_nothing() -> None:
    vault = Vault()
    vault.avoid("write <person 1> or PERSON_2")
    assert hidden(vault, "Ann", ("person", "Ann")) == "<PERSON_3>"
    assert vault.restore("<PERSON_1> PERSON_2 <PERSON_3>") == "<PERSON_1> PERSON_2 Ann"


def test_a_callers_own_text_like_one_of_ours_comes_back_as_it_was() -> None:
    vault = Vault()
    assert hidden(vault, "Ann", ("person", "Ann")) == "<PERSON_1>"
    later = "what does <PERSON_1> mean? and <person 1>?"
    told = vault.hide(later, [])
    assert told == "what does <LITERAL_1> mean? and <LITERAL_2>?"
    assert vault.restore(told) == later
    assert vault.hidden == {"person": 1}


def test_what_is_put_back_can_be_escaped() -> None:
    vault = Vault()
    hidden(vault, 'Ann "A" Lee', ("person", 'Ann "A" Lee'))
    assert vault.restore('{"to": "<PERSON_1>"}', lambda thing: thing.replace('"', '\\"')) == (
        '{"to": "Ann \\"A\\" Lee"}'
    )


def test_it_has_bounds_and_its_errors_tell_nothing() -> None:
    small = Vault(entries=1)
    hidden(small, "Ann Ann", ("person", "Ann"), ("person", "Ann"))
    with pytest.raises(PayloadTooLarge) as refused:
        hidden(small, "Zzyzx", ("person", "Zzyzx"))
    assert "Zzyzx" not in refused.value.message
    with pytest.raises(PayloadTooLarge):
        hidden(Vault(size=3), "王小", ("person", "王小"))


@given(
    st.lists(
        st.sampled_from(
            ["ann@example.org", " ", "<EMAIL_1>", "<PERSON_2>", "PHONE_1", "+49 30 1234567",
             "é", "👩‍👧",
             "Maria Schneider", "<", "_1>", "王小明，", "\ufffc", "4111 1111 1111 1111", "x",
             "<literal 1>"]
        ),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_is_hidden_comes_back(parts: list[str]) -> None:
    vault = Vault()
    text = "".join(parts)
    told = vault.hide(text, FINDER.find(text))
    assert "ann@example.org" not in told
    assert vault.restore(told) == text
