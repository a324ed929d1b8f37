"""What a tenant wants done for its privacy."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
import sqlalchemy as sa

from openmaas.errors import InvalidRequest
from openmaas.redaction.policy import RedactionPolicy
from openmaas.schema import keys, tenants

MOST_DAYS = 3650
HIDING = ("hide", "block")  # actions under which nothing is written down in the clear

Policy = TypeVar("Policy")
Days = Annotated[int, msgspec.Meta(ge=1, le=MOST_DAYS)]


class PrivacyPolicy(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """All of it is off where nothing is said.

    Attributes:
        retain_days: how long requests and answers are kept, sealed; ``None``: not at all.
        withdraw: versions that were trained on a data set are taken down when it is erased.
        dedicated: public models answer this tenant from replicas that serve nobody else.
    """

    redaction: RedactionPolicy = RedactionPolicy()
    retain_days: Days | None = None
    withdraw: bool = False
    dedicated: bool = False


def privacy(values: object) -> PrivacyPolicy:
    """A policy from JSON-like data.

    Raises:
        InvalidRequest: an unknown name, or a value that cannot be.
    """
    return _policy(values, PrivacyPolicy)


def check(policy: PrivacyPolicy) -> None:
    """
    Raises:
        InvalidRequest: what is hidden from models would be kept as it was sent.
    """
    if policy.retain_days is not None and policy.redaction.action in HIDING:
        raise InvalidRequest(
            f"retain_days keeps requests as they were sent, and redaction is to "
            f"{policy.redaction.action} what is in them; choose one of the two",
            param="privacy.retain_days",
        )


def redaction(values: object) -> RedactionPolicy:
    """As ``privacy``, of a key."""
    return _policy(values, RedactionPolicy)


def held(connection: sa.Connection, tenant: str, key: str) -> RedactionPolicy:
    """What holds for what a key does: its own policy, else its tenant's."""
    query = (
        sa.select(tenants.c.privacy, keys.c.redaction)
        .outerjoin(keys, (keys.c.tenant == tenants.c.id) & (keys.c.id == key))
        .where(tenants.c.id == tenant)
    )
    row = connection.execute(query).first()
    if row is None:
        return RedactionPolicy()
    return privacy(row.privacy).redaction if row.redaction is None else redaction(row.redaction)


def stored(policy: PrivacyPolicy | RedactionPolicy) -> dict[str, object]:
    """The form that the database keeps."""
    return msgspec.to_builtins(policy)  # type: ignore[no-any-return]


def told(policy: PrivacyPolicy) -> dict[str, object]:
    """What the audit log says of it: no word and no pattern that is looked for."""
    redaction = policy.redaction
    return stored(policy) | {
        "redaction": {"action": redaction.action, "kinds": redaction.kinds},
    }


def _policy(values: object, kind: type[Policy]) -> Policy:
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"privacy: {error}", param="privacy") from None
