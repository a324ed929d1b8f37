"""What turns an encoder's vector into logits, as a classifier's folder describes it.

Either as transformers writes it (``config.json`` and weights of …ForSequenceClassification), or
as a head of our own beside a sentence encoder: ``head.json`` with ``labels`` and perhaps
``activation`` and ``multi_label``, and in ``head.safetensors`` the dense layers
``head.0.weight`` [out, in], ``head.0.bias`` [out], ``head.1.weight`` …
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ArtifactRefused, ConversionFailed
from openmaas.registry.importers.encoder_weights import Array, Encoder, Weights
from openmaas.registry.importers.safetensors_file import SafetensorsFolder
from openmaas.registry.recognise import CLASSIFIER, read_json

MAX_LABELS, MAX_LABEL, MAX_LAYERS = 4096, 200, 8
ACTIVATIONS = ("relu", "tanh", "gelu", "gelu_tanh")
# Labels of natural language inference: whether one text follows from another.
INFERENCE = {"entailment", "contradiction"}


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Dense layers on an encoder's vector, the activation between them, one logit a label."""

    layers: list[tuple[Array, Array]]  # (weight [out, in], bias [out])
    activation: str  # one of ACTIVATIONS
    unit: bool  # the vector is brought to length 1 first
    labels: list[str]
    multi_label: bool = False
    pairs: bool = False


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """What a transformers classifier's logits stand for."""

    labels: list[str]
    multi_label: bool
    pairs: bool  # by one label, as rerankers have, or by those of inference


def read(folder: Path, encoder: Encoder) -> Head:
    """
    Raises:
        ArtifactRefused: settings or weights are damaged, missing or do not fit one another.
        ConversionFailed: a regression on several numbers, which is no classifier.
    """
    if (folder / "head.json").is_file():
        return _own(folder, encoder)
    weights = Weights(folder)
    names, activation = {
        "bert": (["pooler.dense", "/classifier"], "tanh"),
        "distilbert": (["/pre_classifier", "/classifier"], "relu"),
    }.get(encoder.family, (["/classifier.dense", "/classifier.out_proj"], "tanh"))
    config = read_json(folder / "config.json")
    found = meaning(config, weights.rows(f"{names[1]}.weight"))
    return Head(
        layers=[
            weights.pair(names[0], encoder.width, encoder.width),
            weights.pair(names[1], len(found.labels), encoder.width),
        ],
        activation=activation,
        unit=False,
        labels=found.labels,
        multi_label=found.multi_label,
        pairs=found.pairs,
    )


def meaning(config: Any, logits: int) -> Meaning:
    """What ``config.json`` says of so many logits.

    Raises:
        ArtifactRefused: labels that are damaged or not as many as logits.
        ConversionFailed: a regression on several numbers.
    """
    names = config.get("id2label") if isinstance(config, dict) else None
    if names is None:
        names = {str(at): f"LABEL_{at}" for at in range(logits)}
    if not isinstance(names, dict) or set(names) != {str(at) for at in range(logits)}:
        raise ArtifactRefused(f"config.json: id2label must name the {logits} logits 0, 1 …")
    labels = check_labels([names[str(at)] for at in range(logits)])
    problem = config.get("problem_type") if isinstance(config, dict) else None
    if problem == "regression" and logits > 1:
        raise ConversionFailed(f"A {CLASSIFIER} for regression on several numbers is not read.")
    return Meaning(
        labels=labels,
        multi_label=problem == "multi_label_classification",
        pairs=logits == 1 or {label.lower() for label in labels} >= INFERENCE,
    )


def _own(folder: Path, encoder: Encoder) -> Head:
    settings = read_json(folder / "head.json")
    if not isinstance(settings, dict) or not set(settings) <= {
        *("labels", "activation", "multi_label")
    }:
        raise ArtifactRefused("head.json holds labels, activation and multi_label, nothing else.")
    activation, multi = settings.get("activation", "relu"), settings.get("multi_label", False)
    if activation not in ACTIVATIONS or type(multi) is not bool:
        raise ArtifactRefused(
            f"head.json: activation is one of {', '.join(ACTIVATIONS)}, multi_label true or false."
        )
    labels = check_labels(settings.get("labels"))
    if len(labels) < 2:
        raise ArtifactRefused("head.json: a head has two labels or more.")
    return Head(
        layers=_layers(SafetensorsFolder(folder), encoder.width, len(labels)),
        activation=activation,
        unit=True,
        labels=labels,
        multi_label=multi,
    )


def _layers(tensors: SafetensorsFolder, width: int, labels: int) -> list[tuple[Array, Array]]:
    count = sum(f"head.{at}.weight" in tensors for at in range(MAX_LAYERS))
    layers = []
    for at in range(count):
        weight, bias = tensors(f"head.{at}.weight"), tensors(f"head.{at}.bias")
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise ArtifactRefused(f"head.{at} does not fit what comes before it.")
        layers.append((weight, bias))
        width = len(bias)
    if not layers or width != labels:
        raise ArtifactRefused(f"The head must end in a logit for each of its {labels} labels.")
    return layers


def check_labels(values: Any) -> list[str]:
    """
    Raises:
        ArtifactRefused: it is no list of different texts of a sane length.
    """
    good = isinstance(values, list) and 0 < len(values) <= MAX_LABELS
    if not good or not all(isinstance(one, str) and 0 < len(one) <= MAX_LABEL for one in values):
        raise ArtifactRefused(
            f"Labels are up to {MAX_LABELS} texts of up to {MAX_LABEL} characters."
        )
    if len(set(values)) != len(values):
        raise ArtifactRefused("Two labels are the same.")
    return list(values)
