"""A ``.keras`` archive, read and judged without Keras.

Keras runs what an archive names (CVE-2025-1550, -8747, -9906, CVE-2026-0897) and follows links
out of its HDF5 (CVE-2026-1669). So every object that the archive names must be on a list of
plain layers, its weights must be plain arrays in the file itself, and what Keras is given is a
new archive made of just these two parts.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from openmaas.errors import ArtifactRefused
from openmaas.registry import archives

MAX_CONFIG = 32 << 20
MAX_OBJECTS = 200_000
MAX_NESTING = 64
MAX_NUMBER = 1 << 24  # units, filters, lengths: beyond it a layer is built to exhaust memory
MAX_TEXT = 2000

LAYERS = frozenset(
    """
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
    CategoryEncoding Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D
    Conv3DTranspose Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D
    Discretization Dot Dropout ELU EinsumDense Embedding Flatten Functional GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupQueryAttention Identity InputLayer LSTM LSTMCell
    LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum
    MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN ReLU
    RepeatVector Rescaling Reshape SeparableConv1D SeparableConv2D Sequential SimpleRNN
    SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells Subtract TimeDistributed UnitNormalization
    UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)
_MODULES = {
    "keras.layers": LAYERS,
    "keras": frozenset({"Sequential", "DTypePolicy"}),
    "keras.models": frozenset({"Sequential", "Functional"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.src.models.sequential": frozenset({"Sequential"}),
    "keras.dtype_policies": frozenset({"DTypePolicy", "FloatDTypePolicy"}),
}
# Small and free of side effects; any class of theirs whose name is a plain word.
_OPEN_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
# What masks are made with, when a layer that masks is part of a network.
_OPERATIONS = {
    "keras.src.ops.numpy": frozenset(
        "NotEqual Equal Any All LogicalAnd LogicalOr LogicalNot Add Subtract Multiply Divide "
        "TrueDivide Mean Sum Max Min Squeeze ExpandDims Concatenate Reshape Transpose".split()
    ),
}
_MARKERS = ("__keras_tensor__", "__tuple__")
# How a network is trained: what a compiled one may name.
_COMPILED = {
    "keras.optimizers": frozenset(
        "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion Nadam RMSprop SGD".split()
    ),
    "keras.optimizers.schedules": frozenset(
        "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay "
        "PolynomialDecay".split()
    ),
    "keras.losses": frozenset(
        """
        BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy
        CategoricalFocalCrossentropy CategoricalHinge CosineSimilarity Hinge Huber KLDivergence
        LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError
        MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge
        """.split()
    ),
    "keras.metrics": frozenset(
        """
        AUC Accuracy BinaryAccuracy BinaryCrossentropy CategoricalAccuracy
        CategoricalCrossentropy CategoricalHinge CosineSimilarity FalseNegatives FalsePositives
        Hinge KLDivergence LogCoshError MeanAbsoluteError MeanAbsolutePercentageError
        MeanSquaredError MeanSquaredLogarithmicError Poisson Precision R2Score Recall
        RootMeanSquaredError SparseCategoricalAccuracy SparseCategoricalCrossentropy
        SparseTopKCategoricalAccuracy SquaredHinge TopKCategoricalAccuracy TrueNegatives
        TruePositives
        """.split()
    ),
}
_COMPILED_KEYS = ("optimizer", "loss", "metrics", "weighted_metrics")


def checked_copy(
    source: Path, folder: Path, *, seeds: bool = False, compiled: bool = False
) -> Path:
    """A new archive in ``folder`` that holds the checked parts of ``source``.

    Args:
        seeds: keep those of its layers, which are nothing to serving.
        compiled: keep its optimizer, loss and metrics, if it has any.

    Raises:
        ArtifactRefused: it names anything but plain layers (and Keras's own optimizers, losses
            and metrics, if they are kept), or its weights are not plain arrays.
    """
    weights = folder / "model.weights.h5"
    with archives.opened(source) as archive:
        if archive.getinfo("config.json").file_size > MAX_CONFIG:
            raise ArtifactRefused("The archive's config.json is too large.")
        text, metadata = archive.read("config.json"), archive.read("metadata.json")
        archives.unpack(archive, archive.getinfo("model.weights.h5"), weights)
    try:
        config, about = msgspec.json.decode(text), msgspec.json.decode(metadata)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactRefused(f"The archive's JSON is damaged: {error}") from None
    version = about.get("keras_version") if isinstance(about, dict) else None
    if not isinstance(version, str) or not version.startswith("3."):
        raise ArtifactRefused("The archive was not written by Keras 3; save it anew with that.")
    if not isinstance(config, dict):
        raise ArtifactRefused("The archive's config.json is no object.")
    # How it was trained is nothing to serving, and may name functions.
    trained = config.pop("compile_config", None)
    check_config(config, seeds=seeds)
    if compiled and isinstance(trained, dict):
        config["compile_config"] = _checked_compile(trained)
    check_weights(weights)
    target = folder / "checked.keras"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("config.json", msgspec.json.encode(config))
        archive.writestr("metadata.json", msgspec.json.encode({"keras_version": version}))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return target


def _checked_compile(trained: dict[str, Any]) -> dict[str, Any]:
    if trained.get("loss_weights") is not None:
        raise ArtifactRefused("The archive's compile_config has loss_weights, which is not read.")
    kept = {key: trained[key] for key in _COMPILED_KEYS if trained.get(key) is not None}
    check_config(kept, known=_COMPILED)
    return kept


def check_config(
    config: Any, *, seeds: bool = False, known: Mapping[str, frozenset[str]] = _MODULES
) -> None:
    """
    Args:
        seeds: leave them as they are; else they are zeroed in place.
        known: modules and their classes that it may name.

    Raises:
        ArtifactRefused: a class off the list, or a number or nesting beyond the bounds.
    """
    left = MAX_OBJECTS
    pending = [(config, 0)]
    while pending:
        value, depth = pending.pop()
        left -= 1
        if left < 0 or depth > MAX_NESTING:
            raise ArtifactRefused("The archive's config.json is too large or too deep.")
        if isinstance(value, dict):
            _check_object(value, seeds, known)
            # shared_object_id is an address in the memory of whoever saved it: a name, no size.
            inside = (
                inner
                for key, inner in value.items()
                if key != "shared_object_id" and not (seeds and _is_seed(key, inner))
            )
            pending += [(inner, depth + 1) for inner in inside]
        elif isinstance(value, list):
            pending += [(inner, depth + 1) for inner in value]
        elif isinstance(value, str) and len(value) > MAX_TEXT:
            raise ArtifactRefused("The archive's config.json holds a text that is too long.")
        elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
            # Only seeds are that large without harm, and they are not needed to serve.
            raise ArtifactRefused(f"The archive's config.json holds the number {value!r:.40}.")


def _is_seed(key: str, value: Any) -> bool:
    return key == "seed" and type(value) is int and 0 <= value < 1 << 32


def _check_object(
    value: dict[str, Any], seeds: bool, allowed: Mapping[str, frozenset[str]]
) -> None:
    if not seeds and "seed" in value and isinstance(value["seed"], int | float):
        value["seed"] = 0
    if "class_name" not in value:
        return
    name, module = value["class_name"], value.get("module")
    registered = value.get("registered_name")
    if name in _MARKERS and module is None:
        return
    known = isinstance(module, str) and (
        name in allowed.get(module, ())
        or name in _OPERATIONS.get(module, ())
        or (module in _OPEN_MODULES and isinstance(name, str) and name.isalnum())
    )
    if not known or registered not in (None, name):
        raise ArtifactRefused(
            f"The archive names {str(module)[:80]}.{str(name)[:80]}, which is not on the list of "
            "plain layers that are loaded here (Lambda and custom classes can run any code). "
            "Build the model from Keras's own layers, or export it to ONNX where you trust it."
            if allowed is _MODULES
            else f"The archive was compiled with {str(module)[:80]}.{str(name)[:80]}, which is "
            "none of Keras's own optimizers, losses and metrics. Name a loss in the fit."
        )


def check_weights(path: Path) -> None:
    """
    Raises:
        ArtifactRefused: links, arrays that lie in other files, or larger than the file says.
    """
    h5py: Any = importlib.import_module("h5py")  # comes with the convert extra alone

    size = path.stat().st_size
    try:
        with h5py.File(path, "r") as file:
            _check_group(file, size, [MAX_OBJECTS], 0)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ArtifactRefused(f"The archive's weights are damaged: {error}") from None


def _check_group(group: Any, size: int, left: list[int], depth: int) -> None:
    h5py: Any = importlib.import_module("h5py")

    for name in group:
        left[0] -= 1
        if left[0] < 0 or depth > MAX_NESTING:
            raise ArtifactRefused("The archive's weights are nested too deeply.")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ArtifactRefused("The archive's weights hold a link to elsewhere.")
        found = group[name]
        if isinstance(found, h5py.Group):
            _check_group(found, size, left, depth + 1)
        elif not isinstance(found, h5py.Dataset):
            raise ArtifactRefused("The archive's weights hold something that is no array.")
        elif found.external or found.is_virtual:
            raise ArtifactRefused("The archive's weights lie in other files.")
        elif found.dtype.kind not in "fiub" or found.nbytes > max(1 << 20, 100 * size):
            raise ArtifactRefused("The archive's weights hold an array of odd type or size.")
