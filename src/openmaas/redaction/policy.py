"""What is done about personal data in texts, and which kinds of it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Action = Literal["off", "report", "hide", "block"]
"""``off``: nothing is looked for. ``report``: found kinds are counted and told, texts stay as they
are. ``hide``: the model sees placeholders, the caller the real things. ``block``: refused."""

Kind = Literal[
    "email", "phone", "credit_card", "iban", "national_id", "ip_address", "mac_address", "secret",
    "birth_date", "address", "person",
]  # fmt: skip
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]

MOST_PATTERNS, MOST_LISTS, MOST_WORDS = 50, 50, 10_000

Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""What an entity is called: one of ``KINDS``, or a tenant's own."""

Expression = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class RedactionPolicy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of a tenant, or of a key, which then holds instead of its tenant's.

    Attributes:
        kinds: that are looked for; ``None``: all.
        patterns: regular expressions of the tenant's own, by label.
        words: lists of the tenant's own, by label, found as whole words in any case.
        conversation: a placeholder stands for the same thing in all requests of a conversation
            (``x-openmaas-conversation``), in memory, as long as it is used.
        model: a deployed token-classification model that is asked too.
    """

    action: Action = "off"
    kinds: tuple[Kind, ...] | None = None
    patterns: Annotated[dict[Label, Expression], msgspec.Meta(max_length=MOST_PATTERNS)] = {}
    words: Annotated[
        dict[Label, Annotated[tuple[Word, ...], msgspec.Meta(max_length=MOST_WORDS)]],
        msgspec.Meta(max_length=MOST_LISTS),
    ] = {}
    conversation: bool = False
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
