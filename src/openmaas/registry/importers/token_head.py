"""What turns an encoder's states into logits of tokens, as a token classifier's folder says.

Either as transformers writes it (``config.json`` and weights of …ForTokenClassification), or as a
head of our own beside a sentence encoder: ``head.json`` with ``task``: ``tag`` and ``labels``, and
in ``head.safetensors`` the dense layer ``head.0.weight`` [labels, width], ``head.0.bias`` [labels].
Such a head may come with small additions to the encoder's own weights W, which become
W + up · down (Hu et al. 2021, LoRA): ``adapter.LAYER.NAME.down`` [rank, in], ``….up`` [out, rank],
by the names of ``encoder_weights``.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from openmaas.errors import ArtifactRefused
from openmaas.registry.importers.classifier_head import check_labels
from openmaas.registry.importers.encoder_weights import Array, Encoder, Weights
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.recognise import read_json

ADAPTED = ("query", "key", "value", "attended", "up", "down")


class TokenHead(msgspec.Struct, frozen=True, kw_only=True):
    """One dense layer on the state of each token."""

    layer: tuple[Array, Array]  # (weight [labels, width], bias [labels])
    labels: list[str]


def read(folder: Path, encoder: Encoder) -> tuple[Encoder, TokenHead]:
    """The encoder as it is to be served, and what is on top of it.

    Raises:
        ArtifactRefused: settings or weights are damaged, missing or do not fit one another.
    """
    if (folder / "head.json").is_file():
        return _own(folder, encoder)
    weights = Weights(folder)
    labels = names(read_json(folder / "config.json"), weights.rows("/classifier.weight"))
    layer = weights.pair("/classifier", len(labels), encoder.width)
    return encoder, TokenHead(layer=layer, labels=labels)


def names(config: object, logits: int) -> list[str]:
    """What ``config.json`` says that so many logits of a token stand for.

    Raises:
        ArtifactRefused: it names none, or not as many.
    """
    found = config.get("id2label") if isinstance(config, dict) else None
    if not isinstance(found, dict) or set(found) != {str(at) for at in range(logits)}:
        raise ArtifactRefused(f"config.json: id2label must name the {logits} logits 0, 1 …")
    return check_labels([found[str(at)] for at in range(logits)])


def _own(folder: Path, encoder: Encoder) -> tuple[Encoder, TokenHead]:
    settings = read_json(folder / "head.json")
    if not isinstance(settings, dict) or set(settings) != {"task", "labels"}:
        raise ArtifactRefused("head.json of a token classifier holds task and labels.")
    labels = check_labels(settings["labels"])
    tensors = SafetensorsFolder(folder)
    weight, bias = tensors("head.0.weight"), tensors("head.0.bias")
    if weight.shape != (len(labels), encoder.width) or bias.shape != (len(labels),):
        raise ArtifactRefused("head.0 does not fit the encoder and its labels.")
    adapters = [name for name in tensors.names() if name.startswith("adapter.")]
    layers = [dict(layer) for layer in encoder.layers]
    for name in adapters:
        _, at, part, end = [*name.split("."), "", "", ""][:4]
        known = at.isdecimal() and int(at) < len(layers) and part in ADAPTED
        if not known or name not in (f"adapter.{at}.{part}.{end}" for end in ("down", "up")):
            raise ArtifactRefused(f"{name[:80]} adds to nothing that the encoder has.")
        if end == "up":
            layers[int(at)][part] = _added(tensors, layers[int(at)][part], f"adapter.{at}.{part}")
    if sum(name.endswith(".up") for name in adapters) * 2 != len(adapters):
        raise ArtifactRefused("An addition to a weight has its down and its up.")
    return msgspec.structs.replace(encoder, layers=layers), TokenHead(
        layer=(weight, bias), labels=labels
    )


def _added(tensors: SafetensorsFolder, pair: tuple[Array, Array], name: str) -> tuple[Array, Array]:
    weight, bias = pair
    down, up = tensors(f"{name}.down"), tensors(f"{name}.up")
    if down.ndim != 2 or down.shape[1] != weight.shape[1] or up.shape != (len(weight), len(down)):
        raise ArtifactRefused(f"{name} does not fit the encoder's weight.")
    return weight + up @ down, bias
