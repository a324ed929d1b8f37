"""Whether a translator's weights have the shapes that its settings promise.

What does not fit would not be noticed everywhere: NumPy stretches a vector of one number, and an
engine may read beyond the end of one that is too short.
"""

from __future__ import annotations

from typing import Any

from openmaas.errors import ArtifactRefused
from openmaas.registry.importers.translator_weights import Array, Side, Translator

BUCKETS = 4, 4096  # of relative positions: half of them for exact distances, in each direction


def check(model: Translator) -> None:
    """
    Raises:
        ArtifactRefused: two parts do not fit, or there are too few words.
    """
    rows, width = model.encoder.words.shape
    if rows < 2:
        raise ArtifactRefused("The model has no words.")
    _shape("words of the decoder", model.decoder.words, rows, width)
    _linear("words of the output", model.head, rows, width)
    if not max(model.start, model.end) < rows:
        raise ArtifactRefused("config.json: a special token is beyond the model's words.")
    for name, side in (("encoder", model.encoder), ("decoder", model.decoder)):
        if side.norm is not None:
            _norm(f"last norm of the {name}", side.norm, width)
        for at, layer in enumerate(side.layers):
            _layer(f"{name} layer {at}", layer, width)
        if side.relative is not None:
            _relative(name, side, model.max_distance)


def _layer(where: str, layer: dict[str, Any], width: int) -> None:
    inner = len(layer["up"][0])
    for name, pair in layer.items():
        if name.endswith("norm"):
            _norm(f"{where}, {name}", pair, width)
        else:
            down, up = name == "down", name in ("up", "gate")
            rows, columns = inner if up else width, inner if down else width
            _linear(f"{where}, {name}", pair, rows, columns)


def _relative(name: str, side: Side, most: int) -> None:
    assert side.relative is not None
    buckets = len(side.relative)
    _shape(f"relative positions of the {name}", side.relative, buckets, side.heads)
    if not BUCKETS[0] <= buckets <= min(BUCKETS[1], most):
        raise ArtifactRefused(
            f"The {name} has {buckets} buckets of relative positions up to {most}."
        )


def _linear(what: str, pair: tuple[Array, Array | None], rows: int, columns: int) -> None:
    _shape(what, pair[0], rows, columns)
    if pair[1] is not None:
        _shape(f"{what}, bias", pair[1], rows)


def _norm(what: str, pair: tuple[Array, Array | None], width: int) -> None:
    _shape(what, pair[0], width)
    if pair[1] is not None:
        _shape(f"{what}, bias", pair[1], width)


def _shape(what: str, found: Array, *wanted: int) -> None:
    if found.shape != wanted:
        raise ArtifactRefused(
            f"The weights do not fit: {what} has the shape {list(found.shape)}, not {list(wanted)}."
        )
