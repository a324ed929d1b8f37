from __future__ import annotations

from pathlib import Path

import pytest

from openmaas.errors import ConfigurationError, ModelNotFound
from openmaas.registry.catalog import Catalog
from openmaas.registry.sources import scheme_of

ENTRY = f"""
[[model]]
name = "x"
task = "predict"
source = "file:x.onnx"
sha256 = "{"0" * 64}"
size = 1
licence = "MIT"
description = "x"
"""


def test_the_shipped_catalog_is_sound() -> None:
    catalog = Catalog.read()
    assert [entry.name for entry in catalog.starters()] == [
        "smollm2-135m",
        "minilm-l6-v2",
        "digits",
        "sentiment",
        "entities",
        "en-pt",
        "pt-en",
    ]
    assert {entry.task for entry in catalog.entries.values()} == {
        *("chat", "embed", "predict", "classify", "translate", "tag")
    }
    for entry in catalog.entries.values():
        assert scheme_of(entry.source) != "https"


@pytest.mark.parametrize(
    "text",
    [
        ENTRY + "sise = 2\n",
        ENTRY.replace('"predict"', '"dance"'),
        ENTRY.replace("size = 1", "size = -1"),
        ENTRY.replace("size = 1", 'size = "1"'),
        ENTRY.replace("0" * 64, "0" * 63),
        ENTRY.replace('"x"', '"../x"', 1),
        ENTRY.replace("licence", "license"),
        ENTRY + ENTRY,
        "[[model]\n",
        "",
        "title = 1\n" + ENTRY,
    ],
)
def test_a_wrong_catalog_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"catalog\.toml"):
        Catalog.read(path)


def test_a_missing_catalog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Catalog.read(tmp_path / "none.toml")


def test_an_unknown_model_names_the_known() -> None:
    with pytest.raises(ModelNotFound, match="smollm2-135m"):
        Catalog.read().entry("gpt-9")
