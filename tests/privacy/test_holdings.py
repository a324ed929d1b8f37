"""No table is forgotten: what is held of tenants is told, exported and erased."""

from __future__ import annotations

from openmaas.privacy.holdings import HOLDINGS, NOBODYS, REMOVED_FIRST
from openmaas.schema import metadata

SECRET = {"hash", "wrapped"}


def test_every_table_with_a_tenant_is_told_of() -> None:
    owned = {name for name, table in metadata.tables.items() if "tenant" in table.columns}
    told = [holding.table.name for holding in HOLDINGS]
    assert len(told) == len(set(told))
    assert owned <= set(told)


def test_every_table_is_somebodys_or_nobodys() -> None:
    told = {holding.table.name for holding in HOLDINGS}
    assert told | NOBODYS == set(metadata.tables)
    assert not told & NOBODYS


def test_kinds_are_told_apart_and_their_order_is_known() -> None:
    kinds = [holding.kind for holding in HOLDINGS]
    assert len(kinds) == len(set(kinds))
    removed = {holding.kind for holding in HOLDINGS if holding.fate == "removed"}
    assert set(REMOVED_FIRST) <= removed


def test_no_secret_is_exported() -> None:
    for holding in HOLDINGS:
        shown = {column.name for column in holding.table.columns} - set(holding.hidden)
        assert not shown & SECRET, holding.kind
        assert set(holding.hidden) <= {column.name for column in holding.table.columns}
