"""A bag of words: the mean of their vectors, then a linear layer (Joulin et al., 2016,
https://arxiv.org/abs/1607.01759), perhaps with a hidden layer between."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from openmaas.training.recipes.text import TextRecipe
from openmaas.training.spec import EarlyStopping, Fit, Optimizer


class TextEmbeddings(TextRecipe):
    own_fit = Fit(
        optimizer=Optimizer(learning_rate=2e-3),
        epochs=30,
        callbacks=[EarlyStopping(patience=2)],
    )

    def build(self) -> Any:
        given = self.asked.parameters
        keras.utils.set_random_seed(self.asked.fit.seed)
        ids = keras.Input((self.length,), dtype="int32", name="input_ids")
        x = layers.Embedding(self.vocabulary, given.dimensions, mask_zero=True)(ids)
        x = layers.GlobalAveragePooling1D()(x)
        x = layers.Dropout(given.dropout)(x)
        if given.units:
            x = layers.Dense(given.units, activation="relu")(x)
            x = layers.Dropout(given.dropout)(x)
        answer = layers.Dense(len(self.labels or []), activation="softmax", name="probabilities")
        return keras.Model(ids, answer(x))
