"""A Transformer's encoder, whose outputs are averaged, and a linear layer (Vaswani et al., 2017,
https://arxiv.org/abs/1706.03762; normalised before each part, as Xiong et al., 2020,
https://arxiv.org/abs/2002.04745)."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from openmaas.training.recipes.text import TextRecipe


class TextTransformer(TextRecipe):
    def build(self) -> Any:
        given = self.asked.parameters
        keras.utils.set_random_seed(self.asked.fit.seed)
        ids = keras.Input((self.length,), dtype="int32", name="input_ids")
        # The layer that adds places lets no mask through.
        there = keras.ops.not_equal(ids, 0)
        x = layers.Embedding(self.vocabulary, given.dimensions)(ids)
        x = placed(x, self.length, given.dimensions)
        x = layers.Dropout(given.dropout)(x)
        for _ in range(given.layers):
            x = _block(x, keras.ops.expand_dims(there, 1), given)
        x = layers.LayerNormalization()(x)
        x = layers.GlobalAveragePooling1D()(x, mask=there)
        x = layers.Dropout(given.dropout)(x)
        answer = layers.Dense(len(self.labels or []), activation="softmax", name="probabilities")
        return keras.Model(ids, answer(x))


def placed(x: Any, length: int, dimensions: int) -> Any:
    """Adds a vector of each place, which is learnt: a bias of its own for each of them, as no
    layer but this has one."""
    return layers.EinsumDense(
        "abc,cd->abd",
        (length, dimensions),
        bias_axes="bd",
        bias_initializer=keras.initializers.RandomNormal(stddev=0.02),
    )(x)


def _block(x: Any, there: Any, given: Any) -> Any:
    near = layers.LayerNormalization()(x)
    attention = layers.MultiHeadAttention(
        given.heads, given.dimensions // given.heads, dropout=given.dropout
    )
    near = attention(near, near, attention_mask=there)
    x = layers.Add()([x, layers.Dropout(given.dropout)(near)])
    wide = layers.LayerNormalization()(x)
    wide = layers.Dense(given.units, activation="gelu")(wide)
    wide = layers.Dense(given.dimensions)(layers.Dropout(given.dropout)(wide))
    return layers.Add()([x, layers.Dropout(given.dropout)(wide)])
