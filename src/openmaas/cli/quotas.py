"""Options that commands about tenants, projects and keys share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from openmaas.errors import ConfigurationError

if TYPE_CHECKING:
    from openmaas.tenancy.quota import Quota

QuotaOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="requests_per_minute, tokens_per_day, money_per_month, concurrent …; repeatable. "
        "docs/operate.md has them all.",
    ),
]
Tenant = Annotated[str, typer.Option(metavar="NAME", help="Whose.")]


def quota_of(pairs: list[str] | None) -> Quota:
    """
    Raises:
        ConfigurationError: not of the form name=value.
        InvalidRequest: an unknown name, or a value out of range.
    """
    from openmaas.tenancy.quota import quota

    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{pair!r}: write it as name=value")
        found[name] = value
    return quota(found)


def told(quota: Quota) -> str:
    """As it was given."""
    values = ((name, getattr(quota, name)) for name in quota.__struct_fields__)
    return " ".join(f"{name}={value}" for name, value in values if value is not None)
