"""Records of erasures: whoever has one can check it, and whoever changes one is found out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from openmaas.errors import InvalidRequest
from openmaas.privacy.signing import SignedRecord, Signer, canonical, parsed, verified
from tests.cli.test_help import run
from tests.stores import opened

RECORD = {"tenant": "acme", "removed": {"files": {"count": 2, "bytes": 10}}, "finished": 3}


@pytest.fixture
def signed(tmp_path: Path) -> SignedRecord:
    with opened(tmp_path / "data") as store:
        return Signer(store.keyring).sign(RECORD)


def test_the_form_does_not_depend_on_the_order() -> None:
    other = {"finished": 3, "removed": {"files": {"bytes": 10, "count": 2}}, "tenant": "acme"}
    assert canonical(RECORD) == canonical(other)
    assert canonical(RECORD).startswith(b'{"finished":3,"removed":{"files":{"bytes":10,')


def test_a_record_is_checked_after_any_way_of_writing_it(signed: SignedRecord) -> None:
    pretty = msgspec.json.format(msgspec.json.encode(signed), indent=3)
    assert verified(parsed(pretty))
    assert verified(parsed(pretty), signed.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"record": RECORD | {"tenant": "other"}},
        {"record": RECORD | {"more": 1}},
        {"signature": "00" * 64},
        {"signature": "no hex"},
        {"public_key": "00" * 32},
        {"public_key": "11"},
        {"form": "openmaas-erasure-2"},
    ],
    ids=str,
)
def test_a_changed_record_is_found_out(signed: SignedRecord, change: dict[str, object]) -> None:
    assert not verified(msgspec.structs.replace(signed, **change))


def test_another_servers_key_does_not_do(signed: SignedRecord, tmp_path: Path) -> None:
    with opened(tmp_path / "another") as store:
        other = Signer(store.keyring)
        assert other.public_key() != signed.public_key
        forged = other.sign(RECORD)
    assert verified(forged)  # it is a record; only not ours
    assert not verified(forged, signed.public_key)


def test_the_key_that_signs_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        first = Signer(store.keyring).public_key()
    with opened(tmp_path) as store:
        assert Signer(store.keyring).public_key() == first


def test_what_is_no_record_is_refused() -> None:
    for raw in (b"", b"{}", b"[1]", b"\xff", b'{"record": {}, "signature": "", "public_key": 1}'):
        with pytest.raises(InvalidRequest):
            parsed(raw)


def test_the_command_checks(signed: SignedRecord, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(msgspec.json.encode(signed))
    assert run("privacy", "verify", str(file), "--key", signed.public_key).exit_code == 0
    told = run("privacy", "verify", str(file))
    assert told.exit_code == 0
    assert signed.public_key in told.stdout
    file.write_bytes(file.read_bytes().replace(b"acme", b"acmf"))
    done = run("privacy", "verify", str(file))
    assert done.exit_code == 1
    assert "not what that key signed" in done.stderr
