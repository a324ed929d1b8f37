"""A Transformer's encoder and decoder (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762),
normalised before each part, with positions that are learnt."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from openmaas.training.recipes.seq2seq import Networks, Seq2Seq, inputs, source_mask
from openmaas.training.spec import CosineDecay, Fit, Optimizer


class Seq2SeqTransformer(Seq2Seq):
    own_fit = Fit(
        optimizer=Optimizer(name="adam", learning_rate=2e-3, beta_2=0.98, clip_norm=1.0),
        epochs=20,
        batch_size=64,
        callbacks=[CosineDecay(warmup=0.1, floor=0.02)],
    )
    architecture = "seq2seq_transformer"

    @property
    def width(self) -> int:
        return int(self.asked.parameters.dimensions)

    def networks(self) -> Networks:
        given = self.asked.parameters
        self._make_layers()
        source = layers.Input((given.source_length,), dtype="int32", name="source")
        memory = self._read(source)
        tokens = layers.Input((given.target_length,), dtype="int32", name="tokens")
        scores = self._scores(self._write(tokens, memory, source))
        training = keras.Model([source, tokens], scores)
        return Networks(training, keras.Model(source, memory), self._decoder())

    def _decoder(self) -> Any:
        given = self.asked.parameters
        shapes: dict[str, tuple[int, ...]] = {
            "source": (given.source_length,),
            "memory": (given.source_length, given.dimensions),
            "tokens": (given.target_length,),
            "position": (1,),
        }
        ports = inputs(shapes, ids=("source", "tokens", "position"))
        source, memory, tokens, position = ports.values()
        x = self._write(tokens, memory, source)
        # Of all places the last one, as a sum over them of which one alone counts.
        at = layers.CategoryEncoding(given.target_length, output_mode="one_hot")(position)
        x = layers.Dot(1)([layers.Flatten()(at), x])
        return keras.Model(list(ports.values()), self._scores(x))

    def _make_layers(self) -> None:
        given = self.asked.parameters
        read, written = self.vocabularies()
        self._readers = [_Block(given, crosses=False) for _ in range(given.layers)]
        self._writers = [_Block(given, crosses=True) for _ in range(given.layers)]
        self._source_words = _Words(read, given.source_length, given)
        self._target_words = _Words(written, given.target_length, given)
        self._read_norm, self._written_norm = (layers.LayerNormalization() for _ in range(2))
        self._scores = self.scoring()

    def _read(self, source: Any) -> Any:
        mask = ops.expand_dims(source_mask(source), 1)
        x = self._source_words(source)
        for block in self._readers:
            x = block(x, attention_mask=mask)
        return self._read_norm(x)

    def _write(self, tokens: Any, memory: Any, source: Any) -> Any:
        """[B, T, D]; padding stands after all tokens, and no place sees those after it."""
        mask = ops.expand_dims(source_mask(source), 1)
        x = self._target_words(tokens)
        for block in self._writers:
            x = block(x, memory, mask, use_causal_mask=True)
        return self._written_norm(x)


class _Words:
    """Vectors of pieces and of their places."""

    def __init__(self, vocabulary: int, length: int, given: Any) -> None:
        self._vectors = layers.Embedding(vocabulary, given.dimensions)
        # A bias of its own at each place is its vector.
        self._places = layers.EinsumDense(
            "abc,cd->abd",
            output_shape=(length, given.dimensions),
            bias_axes="bd",
            bias_initializer=keras.initializers.RandomNormal(stddev=0.05),
        )
        self._dropout = layers.Dropout(given.dropout)

    def __call__(self, ids: Any) -> Any:
        return self._dropout(self._places(self._vectors(ids)))


class _Block:
    """Attention to oneself, perhaps to a memory, and a feed-forward part."""

    def __init__(self, given: Any, *, crosses: bool) -> None:
        def attention() -> Any:
            size = given.dimensions // given.heads
            return layers.MultiHeadAttention(given.heads, size, dropout=given.dropout)

        self._own = attention()
        self._cross = attention() if crosses else None
        self._norms = [layers.LayerNormalization() for _ in range(3 if crosses else 2)]
        self._wide = layers.Dense(given.units, activation="relu")
        self._narrow = layers.Dense(given.dimensions)
        self._dropout = layers.Dropout(given.dropout)

    def __call__(self, x: Any, memory: Any = None, mask: Any = None, **options: Any) -> Any:
        y = self._norms[0](x)
        x = layers.Add()([x, self._dropout(self._own(y, y, **options))])
        if self._cross is not None:
            y = self._norms[1](x)
            y = self._cross(y, memory, attention_mask=mask)
            x = layers.Add()([x, self._dropout(y)])
        y = self._narrow(self._wide(self._norms[-1](x)))
        return layers.Add()([x, self._dropout(y)])
