"""A recurrent encoder, which reads both ways, and a recurrent decoder with attention over it:
multiplicative (Luong et al., 2015, https://arxiv.org/abs/1508.04025), or with the additive score
of Bahdanau et al. (2014, https://arxiv.org/abs/1409.0473) in the same place, after the cell."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from openmaas.training.recipes.seq2seq import Networks, Seq2Seq, inputs, source_mask


class Seq2SeqRnn(Seq2Seq):
    architecture = "seq2seq_rnn"

    @property
    def width(self) -> int:
        return int(self.asked.parameters.units)

    def networks(self) -> Networks:
        given = self.asked.parameters
        self._make_layers()
        source = layers.Input((given.source_length,), dtype="int32", name="source")
        memory, states = self._read(source)
        tokens = layers.Input((given.target_length,), dtype="int32", name="tokens")
        scores, _ = self._step(tokens, memory, source, states)
        encoder = keras.Model(source, [memory, *states])
        return Networks(keras.Model([source, tokens], scores), encoder, self._decoder(len(states)))

    def _decoder(self, states: int) -> Any:
        given = self.asked.parameters
        shapes: dict[str, tuple[int, ...]] = {
            "source": (given.source_length,),
            "memory": (given.source_length, given.units),
            "token": (1,),
        }
        shapes |= {f"state_{at}": (given.units,) for at in range(states)}
        ports = inputs(shapes, ids=("source", "token"))
        source, memory, token, *before = ports.values()
        scores, after = self._step(token, memory, source, before)
        return keras.Model(list(ports.values()), [layers.Flatten()(scores), *after])

    def _make_layers(self) -> None:
        given = self.asked.parameters
        read, written = self.vocabularies()
        cell = layers.GRU if given.cell == "gru" else layers.LSTM
        self._states = 1 if given.cell == "gru" else 2  # of a layer
        options: dict[str, Any] = {"return_sequences": True, "return_state": True}
        self._source_words = layers.Embedding(read, given.dimensions, mask_zero=True)
        self._dropout = layers.Dropout(given.dropout)
        first = layers.Bidirectional(cell(given.units, **options))
        self._readers = [first, *(cell(given.units, **options) for _ in range(given.layers - 1))]
        count = given.layers * self._states
        self._bridges = [layers.Dense(given.units, activation="tanh") for _ in range(count)]
        self._memory = layers.Dense(given.units)
        self._target_words = layers.Embedding(written, given.dimensions)
        self._writers = [cell(given.units, **options) for _ in range(given.layers)]
        luong = given.attention == "luong"
        self._attention = layers.Attention() if luong else layers.AdditiveAttention()
        self._together = layers.Dense(given.units, activation="tanh")
        self._scores = self.scoring()

    def _read(self, source: Any) -> tuple[Any, list[Any]]:
        x = self._dropout(self._source_words(source))
        last: list[Any] = []
        for at, layer in enumerate(self._readers):
            x, *states = layer(x)
            if at == 0:  # forwards, then backwards
                half = len(states) // 2
                pairs = zip(states[:half], states[half:], strict=True)
                states = [layers.Concatenate()(list(pair)) for pair in pairs]
            last += states
            x = self._dropout(x)
        states = [bridge(one) for bridge, one in zip(self._bridges, last, strict=True)]
        return self._memory(x), states

    def _step(
        self, tokens: Any, memory: Any, source: Any, states: list[Any]
    ) -> tuple[Any, list[Any]]:
        """Scores [B, tokens, V] of the next piece after each, and the states after the last."""
        x = self._dropout(self._target_words(tokens))
        after: list[Any] = []
        for at, layer in enumerate(self._writers):
            own = states[at * self._states : (at + 1) * self._states]
            x, *new = layer(x, initial_state=own)
            after += new
        context = self._attention([x, memory], mask=[None, source_mask(source)])
        x = self._together(layers.Concatenate()([x, context]))
        return self._scores(self._dropout(x)), after
