"""A trained encoder and decoder in Keras → two OpenVINO graphs that write greedily.

The folder: ``encoder.keras`` (token ids → states of each token, and perhaps first states of the
decoder) and ``decoder.keras`` (one step; inputs by the names of ``seq2seq_graph``), the tokenizers
``source.json`` and ``target.json``, ``config.json`` and ``rows.json``, a list of objects of a
``text`` and the trained network's greedy ``output``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import openvino
from msgspec import Meta
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import keras, network_check, seq2seq_graph
from openmaas.registry.manifest import Description, Verification
from openmaas.registry.recognise import MAX_JSON, MAX_TOKENIZER, read_json

GRAPHS = ("encoder", "decoder")
TOKENIZERS = ("source.json", "target.json")
SETTINGS = "seq2seq.json"  # what of config.json the runtime reads
ROWS = "rows.json"
MAX_ROWS_BYTES = 64 << 20
COMPARED = 64  # texts, at most
MAX_TOKENS = 4096

_Id = Annotated[int, Meta(ge=0, le=1 << 24)]
_Length = Annotated[int, Meta(ge=4, le=MAX_TOKENS)]
_Language = Annotated[str, Meta(pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*)?$")]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``config.json``."""

    task: Literal["translate", "summarize"]
    source_language: _Language = ""  # of a translator
    target_language: _Language = ""
    source_length: _Length  # tokens, the end included
    target_length: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]  # the end included
    padding_id: Literal[0]
    begin_id: _Id  # of target.json: what an answer begins with, unwritten
    end_id: _Id
    unknown_id: _Id  # for who reads the file: the tokenizers know it
    state: list[str] = []  # as the decoder's inputs are named
    architecture: Annotated[str, Meta(max_length=100)]


class Row(msgspec.Struct, frozen=True):
    text: str
    output: str


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Raises:
        ArtifactRefused: a part is missing, damaged or unsafe, or they do not fit.
        ConversionFailed: Keras is missing, or the graphs write other texts than were written.
    """
    config = _config(source / "config.json")
    version = ""
    graphs: list[openvino.Model] = []
    for name in GRAPHS:
        _, network, version = keras.exported(source / f"{name}.keras", say)
        made = (
            seq2seq_graph.decoder(network, len(graphs[0].outputs) - 1)
            if graphs
            else seq2seq_graph.encoder(network)
        )
        openvino.save_model(made, str(out / f"{name}.xml"), compress_to_fp16=False)
        graphs.append(made)
    for name in TOKENIZERS:
        read_json(source / name, MAX_TOKENIZER)
        shutil.copyfile(source / name, out / name)
    _check_lengths(graphs, config)
    if config.state != [f"state_{at}" for at in range(len(graphs[0].outputs) - 1)]:
        raise ArtifactRefused("config.json names other states than the encoder gives.")
    settings = {name: getattr(config, name) for name in ("begin_id", "end_id", "target_length")}
    (out / SETTINGS).write_bytes(msgspec.json.encode(settings))
    say("comparing what it writes with what was trained")
    return Description(
        format="openvino-seq2seq",
        task=config.task,
        architecture=config.architecture,
        precision="f32",
        context_tokens=config.source_length,
        source_languages=[config.source_language] if config.source_language else [],
        target_languages=[config.target_language] if config.target_language else [],
        verification=_compare(out, config, source / ROWS),
        converted_by={"keras": version, "openvino": openvino.__version__},
    )


def _config(path: Path) -> Config:
    if not path.is_file() or path.stat().st_size > MAX_JSON:
        raise ArtifactRefused("The folder has no config.json, or one that is too large.")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"config.json is damaged: {error}") from None
    if config.task == "translate" and not (config.source_language and config.target_language):
        raise ArtifactRefused("config.json: a translator has a source and a target language.")
    return config


def _check_lengths(graphs: list[openvino.Model], config: Config) -> None:
    reads, writes = graphs
    source = _side(reads.input("source"))
    names = {port.any_name for port in writes.inputs}
    target = _side(writes.input("tokens")) if "tokens" in names else None
    if source not in (None, config.source_length) or (target or MAX_TOKENS) < config.target_length:
        raise ArtifactRefused(
            f"config.json has lengths of {config.source_length} and {config.target_length} tokens, "
            f"the networks of {source or 'any'} and {target or 'any'}."
        )


def _compare(out: Path, config: Config, rows: Path) -> Verification:
    """Each text by itself and from the beginning, as plainly as it can be written: the runtime
    does the same for many at once."""
    reads, writes = (network_check.compiled(out / f"{name}.xml") for name in GRAPHS)
    source, target = (_tokenizer(out / name) for name in TOKENIZERS)
    source.enable_truncation(config.source_length)
    known = _read(rows)
    for number, row in enumerate(known):
        answer = _answer(reads, writes, source.encode(row.text).ids, config)
        text = target.decode(answer, skip_special_tokens=True)
        if text != row.output:
            raise ConversionFailed(
                f"Text {number} becomes {text[:100]!r} instead of the trained network's "
                f"{row.output[:100]!r}."
            )
    return Verification(
        against="the trained network's own greedy answers to held-out texts",
        samples=len(known),
        max_abs_error=0.0,
        compared="whole answers, character by character",
    )


def _answer(
    reads: openvino.CompiledModel, writes: openvino.CompiledModel, ids: list[int], config: Config
) -> list[int]:
    row = np.zeros((1, _side(reads.input("source")) or len(ids)), np.int64)
    row[0, : len(ids)] = ids
    given: dict[str, Any] = {"source": row}
    states = [f"state_{at}" for at in range(len(reads.outputs) - 1)]
    given |= _named(["memory", *states], reads(given))
    names = {port.any_name for port in writes.inputs}
    answer: list[int] = []
    while len(answer) < config.target_length:
        seen = [config.begin_id, *answer]
        given["token"] = np.array([seen[-1:]], np.int64)
        if "tokens" in names:
            most = _side(writes.input("tokens")) or len(seen)
            given["tokens"] = np.array([seen + [0] * (most - len(seen))], np.int64)
            given["position"] = np.array([[len(seen) - 1]], np.int64)
        found = writes({name: given[name] for name in names})
        made = _named(["next", "logprob", *states], found)
        token = int(made["next"][0])
        if token == config.end_id:
            break
        answer.append(token)
        given |= made
    return answer


def _named(names: list[str], found: Any) -> dict[str, NDArray[Any]]:
    return {name: np.array(found[at]) for at, name in enumerate(names)}


def _side(port: Any) -> int | None:
    side = port.get_partial_shape()[1]
    return None if side.is_dynamic else int(side.get_length())


def _tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise ArtifactRefused(f"{path.name} cannot be read: {str(error)[:200]}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read(path: Path) -> list[Row]:
    if not path.is_file() or path.stat().st_size > MAX_ROWS_BYTES:
        raise ArtifactRefused(f"The folder has no {ROWS}, or one that is too large.")
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[Row])[:COMPARED]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"{ROWS} is damaged: {error}") from None
    if not rows:
        raise ArtifactRefused(f"{ROWS} has no rows.")
    return rows
