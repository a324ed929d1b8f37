"""What a trained classifier of texts answered to held-out texts, against what its graph answers.

``rows.json`` is a list of objects of a ``text`` and its ``probabilities``, one for each label, or
one number, which is the second of two labels' own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers import network_check
from openmaas.registry.manifest import Verification

ROWS = "rows.json"
MAX_BYTES = 64 << 20
COMPARED = 256  # rows, at most
BATCH = 32
TOLERANCE = 1e-4  # of a probability

Floats = NDArray[np.float32]


class Row(msgspec.Struct, frozen=True):
    text: str
    probabilities: Annotated[list[float], Meta(min_length=1, max_length=4096)]


def compare(out: Path, context: int, multi_label: bool, rows: Path) -> Verification:
    """
    Args:
        out: holds the graph, which answers logits, and its ``tokenizer.json``.

    Raises:
        ArtifactRefused: the rows are damaged.
        ConversionFailed: the graph gives other probabilities.
    """
    known = read(rows)
    ids = _ids(out / "tokenizer.json", [row.text for row in known], context)
    kept = [at for at, of_one in enumerate(ids) if 0 < len(of_one) <= context]
    if not kept:
        raise ConversionFailed("The held-out texts have no tokens.")
    wanted = np.asarray([_shares(known[at].probabilities) for at in kept], np.float32)
    found = probabilities(_logits(out, [ids[at] for at in kept]), multi_label)
    if found.shape != wanted.shape:
        raise ConversionFailed(
            f"The graph answers {found.shape[1]} numbers a text, the network {wanted.shape[1]}."
        )
    worst = float(np.abs(found - wanted).max())
    if not worst <= TOLERANCE:
        raise ConversionFailed(f"A probability differs by {worst:.3g} from the trained network's.")
    return Verification(
        against="the trained network's own answers to held-out texts",
        samples=len(kept),
        max_abs_error=worst,
        compared="probabilities of real texts, padded in batches where the graph takes a mask",
    )


def read(path: Path) -> list[Row]:
    """
    Raises:
        ArtifactRefused: it holds no rows, or too many, or not as many numbers in each.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ArtifactRefused(f"{path.name} is too large.")
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[Row])[:COMPARED]
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"{path.name} is damaged: {error}") from None
    if len({len(row.probabilities) for row in rows}) != 1:
        raise ArtifactRefused(f"{path.name} has no rows, or not as many numbers in each.")
    return rows


def probabilities(logits: Floats, multi_label: bool) -> Floats:
    powers: Floats = np.exp(logits - (0 if multi_label else logits.max(1, keepdims=True)))
    return powers / (1 + powers) if multi_label else powers / powers.sum(1, keepdims=True)


def _shares(values: list[float]) -> list[float]:
    return [1 - values[0], values[0]] if len(values) == 1 else values


def _logits(out: Path, texts: list[list[int]]) -> Floats:
    network = network_check.compiled(out / "openvino_model.xml")
    names = {port.any_name for port in network.inputs}
    if "attention_mask" not in names:  # texts of different lengths cannot share a call
        return np.concatenate([network({"input_ids": np.array([ids])})[0] for ids in texts])
    parts = []
    for at in range(0, len(texts), BATCH):
        batch = texts[at : at + BATCH]
        arrays = {name: np.zeros((len(batch), max(map(len, batch))), np.int64) for name in names}
        for row, ids in enumerate(batch):
            arrays["input_ids"][row, : len(ids)] = ids
            arrays["attention_mask"][row, : len(ids)] = 1
        parts.append(np.array(network(arrays)[0]))
    return np.concatenate(parts)


def _ids(path: Path, texts: list[str], context: int) -> list[list[int]]:
    """Tokens of the texts. Longer ones than the context are cut only where all are longer: a
    service reads those in passages."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
        found = [row.ids for row in tokenizer.encode_batch(texts)]
        if min(map(len, found)) > context:
            tokenizer.enable_truncation(context)
            found = [row.ids for row in tokenizer.encode_batch(texts)]
    except Exception as error:  # the library raises plain Exception on what it cannot read
        raise ArtifactRefused(f"{path.name} cannot be read: {str(error)[:200]}") from None
    return found
