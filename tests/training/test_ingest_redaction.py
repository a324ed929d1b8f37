"""Personal data in uploads: hidden, counted or refused by whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training.reading import Read
from tests.training.test_ingest_arrays import npz, picture, zipped

from openmaas.errors import InvalidRequest
from openmaas.redaction.policy import RedactionPolicy
from openmaas.training.formats.hiding import Hiding

ANNA, BOB = "anna.schmidt@example.org", "bob@example.com"
CSV = f"""text,owner,amount,label
"Write to {ANNA}, then to {BOB}.",{ANNA},1,yes
"{BOB} says {ANNA} is away",{BOB},2,no
"nothing, <EMAIL_1>",{ANNA},3,yes
"more of nothing",,4,no
""".encode()


def read(folder: Path, action: str, form: str = "csv", content: bytes = CSV, **more: Any) -> Read:
    policy = RedactionPolicy(action=action, kinds=("email",))  # type: ignore[arg-type]
    return Read(form, content, folder, Hiding(policy), **more)


def test_what_is_hidden_has_one_placeholder_in_all_rows(tmp_path: Path) -> None:
    found = read(tmp_path, "hide", split={"validation": 0, "test": 0})
    texts, owners = found.data.texts("text"), found.data.texts("owner")
    anna, bob = owners[0], owners[1]
    assert owners == [anna, bob, anna, ""]
    assert texts[0] == f"Write to {anna}, then to {bob}."
    assert texts[1] == f"{bob} says {anna} is away"
    assert texts[2] == "nothing, <EMAIL_1>"
    assert "<EMAIL_1>" not in (anna, bob)  # which the data has without meaning anybody
    everything = b"".join(path.read_bytes() for path in found.out.iterdir())
    told = repr((found.description, found.preview))
    assert b"schmidt" not in everything
    assert "schmidt" not in told
    assert found.description.personal_data == {"text": {"email": 2}, "owner": {"email": 3}}
    assert found.description.redaction == "hide"


def test_report_counts_and_leaves_the_data(tmp_path: Path) -> None:
    found, plain = read(tmp_path, "report"), read(tmp_path, "off")
    assert found.description.personal_data == {"text": {"email": 2}, "owner": {"email": 3}}
    assert found.description.redaction == "report"
    assert found.data.texts("owner")[0] == ANNA
    assert found.description.fingerprint == plain.description.fingerprint
    assert plain.description.redaction is None
    assert plain.description.personal_data == {}


def test_block_names_columns_kinds_and_rows(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(tmp_path, "block")
    message = caught.value.message
    assert "email in 2 rows of 'text'" in message
    assert "email in 3 rows of 'owner'" in message
    assert "schmidt" not in message
    assert read(tmp_path, "block", content=b"a,label\nx y,1\nz,0\n").description.rows == 2


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    rows = b"card,label\n4111111111111111,1\n5500005555555559,0\n"
    policy = RedactionPolicy(action="hide")
    found = Read("csv", rows, tmp_path, Hiding(policy))
    assert found.kinds["card"] == "number int64"


def test_messages_about_bad_rows_quote_nobody(tmp_path: Path) -> None:
    rows = CSV.replace(b",2,no", f",{BOB},no".encode())
    with pytest.raises(InvalidRequest) as caught:
        read(tmp_path, "hide", content=rows, kinds={"amount": "number"})
    assert BOB not in caught.value.message
    assert "<EMAIL_" in caught.value.message


def test_names_of_classes(tmp_path: Path) -> None:
    names = np.array([ANNA, BOB, ANNA, BOB])
    content = npz(x=np.arange(4.0), label=names)
    found = read(tmp_path, "hide", "npz", content)
    assert sorted(found.description.classes) == ["<EMAIL_1>", "<EMAIL_2>"]
    assert found.description.personal_data == {"label": {"email": 4}}
    with pytest.raises(InvalidRequest, match="email in 4 rows of 'label'"):
        read(tmp_path, "block", "npz", content)


def test_names_of_folders_of_images(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pictures = {f"{who}/{at}.png": picture((at, 0, 0)) for who in (ANNA, BOB) for at in range(3)}
    found = read(tmp_path, "hide", "images", zipped(pictures))
    assert sorted(found.description.classes) == ["<EMAIL_1>", "<EMAIL_2>"]
    assert "schmidt" not in repr(found.description)
