"""A recurrent network that reads a text forwards and backwards, and a linear layer on the mean of
what it remembers at each word (Hochreiter and Schmidhuber, 1997; Cho et al., 2014,
https://arxiv.org/abs/1406.1078; Schuster and Paliwal, 1997)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from openmaas.training.recipes.text import TextRecipe


class TextRecurrent(TextRecipe):
    cell: Any = None  # a recurrent layer of Keras

    def build(self) -> Any:
        given = self.asked.parameters
        keras.utils.set_random_seed(self.asked.fit.seed)
        ids = keras.Input((self.length,), dtype="int32", name="input_ids")
        x = layers.Embedding(self.vocabulary, given.dimensions, mask_zero=True)(ids)
        x = layers.SpatialDropout1D(given.dropout)(x)
        for _ in range(given.layers):
            layer = type(self).cell(given.units, return_sequences=True)
            x = (layers.Bidirectional(layer) if given.bidirectional else layer)(x)
        x = layers.GlobalAveragePooling1D()(x)
        x = layers.Dropout(given.dropout)(x)
        answer = layers.Dense(len(self.labels or []), activation="softmax", name="probabilities")
        return keras.Model(ids, answer(x))
