"""Convolutions in blocks, each half the size of the one before it (after Simonyan and Zisserman,
2014, https://arxiv.org/abs/1409.1556, with batch normalisation), on images or arrays like them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
from keras import layers

from openmaas.errors import InvalidRequest
from openmaas.training import targets
from openmaas.training.recipes.base import Prepared, Recipe, row_weights, splits
from openmaas.training.recipes.habits import the_array, with_validation
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import EarlyStopping, Fit, ReduceOnPlateau
from openmaas.training.task import ExportKind

MAX_SIDE = 1024  # pixels
MAX_CHANNELS = 64
GROUPS = 8  # of channels that are normalised together, where no batch may be
SHIFT = 0.1  # of a side, at most


class ImageCnn(Recipe):
    own_fit = Fit(
        optimizer="adam",
        epochs=30,
        batch_size=64,
        callbacks=[ReduceOnPlateau(patience=3), EarlyStopping(patience=8)],
    )

    def prepare(self) -> Prepared:
        asked = self.asked
        if asked.data.description.kind != "arrays":
            raise InvalidRequest(
                "the recipe reads images: a folder of them, or arrays; the data set is a table",
                param="dataset",
            )
        wanted = targets.target(asked.data, asked.target)
        column = the_array(asked.data, asked.inputs, wanted.name)
        numbers, self.labels = targets.classes(asked.data, wanted)
        images = asked.data.array(column.name)
        self._shape = self._checked(column.name, tuple(column.shape))
        weights = row_weights(asked, numbers, self.labels)
        prepared = splits(asked.data, [images], numbers, weights)
        self._scale, self._offset = _range(column.name, prepared.train)
        self.own_fit = with_validation(self.own_fit, prepared)
        return prepared

    def build(self) -> Any:
        keras.utils.set_random_seed(self.asked.fit.seed)
        self._layers = self._made()
        return self._network(self.asked.parameters.augment)

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        # The same layers, without what is for training alone.
        self._network(augment=False).save(folder / "model.keras")
        images = np.asarray(shown.inputs[0], np.float32)
        np.savez(folder / "rows.npz", image=images, outputs=outputs)
        (folder / "labels.json").write_bytes(msgspec.json.encode(self.labels))
        return "keras"

    def _checked(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        blocks = self.asked.parameters.blocks
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > MAX_CHANNELS):
            raise InvalidRequest(
                f"{name} has rows of {'×'.join(map(str, shape)) or 'one number'}; an image is "
                f"[height, width] or [height, width, channels], of up to {MAX_CHANNELS} channels",
                param="inputs",
            )
        if not 2**blocks <= min(shape[:2]) <= max(shape[:2]) <= MAX_SIDE:
            raise InvalidRequest(
                f"{name} has images of {shape[0]}×{shape[1]}; {blocks} blocks take those with "
                f"sides of {2**blocks} to {MAX_SIDE}",
                param="inputs",
            )
        return shape

    def _made(self) -> list[Any]:
        given = self.asked.parameters
        made: list[Any] = []
        for block in range(given.blocks):
            filters = min(1024, given.filters << block)
            made += [
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                self._normalised(filters),
                layers.Activation("relu"),
                layers.MaxPooling2D(),
            ]
        return [
            *made,
            layers.Flatten(),
            layers.Dense(given.units, activation="relu"),
            layers.Dropout(given.dropout),
            layers.Dense(len(self.labels or []), activation="softmax", name="probabilities"),
        ]

    def _normalised(self, filters: int) -> Any:
        if self.asked.private:  # statistics of a batch mix its rows
            return layers.GroupNormalization(math.gcd(filters, GROUPS))
        # Small data sets have few steps an epoch: Keras's 0.99 would lag behind for many.
        return layers.BatchNormalization(momentum=0.9)

    def _network(self, augment: bool) -> Any:
        image = keras.Input(self._shape, dtype="float32", name="image")
        x = image if len(self._shape) == 3 else layers.Reshape((*self._shape, 1))(image)
        x = layers.Rescaling(self._scale, self._offset)(x)
        if augment:
            x = layers.RandomTranslation(SHIFT, SHIFT, fill_mode="nearest")(x)
        for layer in self._layers:
            x = layer(x)
        return keras.Model(image, x)


def _range(name: str, rows: Rows) -> tuple[float, float]:
    """Scale and offset that bring the training rows' numbers between 0 and 1.

    Raises:
        InvalidRequest: all are the same, or of a size that float32 cannot tell apart.
    """
    values = rows.inputs[0]
    if values.dtype == np.uint8 and values.max() > 127:
        return 1 / 255, 0.0
    lows, highs = [], []
    assert rows.places is not None
    for part in np.array_split(rows.places, max(1, len(rows.places) // 1024)):
        lows.append(float(values[part].min()))
        highs.append(float(values[part].max()))
    low, high = min(lows), max(highs)
    spread = high - low
    if not 1e-6 <= spread <= 1e30 or abs(low) > 1e6 * spread:
        raise InvalidRequest(
            f"the images in {name} hold numbers from {low:g} to {high:g}, which tell nothing apart",
            param="inputs",
        )
    return 1 / spread, -low / spread
