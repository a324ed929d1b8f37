"""What recipes from text to text share: pieces of words, teacher forcing, and what is served.

A tokenizer of each language (byte-pair encoding; Sennrich et al., 2016,
https://aclanthology.org/P16-1162) is made from the training rows. The network is given the source
and what the answer should have been up to each place, and learns the next piece there; padding
counts for nothing. What is served are two networks of the same weights, one that reads and one
that writes the next piece.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import msgspec
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray
from tokenizers import Tokenizer

from openmaas.errors import InvalidRequest
from openmaas.training import fitting, greedy, pieces, targets
from openmaas.training.chrf import chrf
from openmaas.training.data import Column
from openmaas.training.recipes.base import Prepared, Recipe, splits
from openmaas.training.recipes.habits import shown_rows, with_validation
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import EarlyStopping, Fit, Optimizer, ReduceOnPlateau
from openmaas.training.task import Confusion, ExportKind

LOSS = "sparse_categorical_crossentropy"
JUDGED = 256  # held-out rows that are written out, at most
COMPARED = 16  # rows of an export
SURE = 1e-3  # by how much a piece must be ahead of the next best one to be compared


class Networks(NamedTuple):
    """Three networks of the same weights; ``greedy.py`` says what the last two take."""

    training: Any  # source [B, S], tokens [B, T] → scores [B, T, V]
    encoder: Any
    decoder: Any


class Seq2Seq(Recipe):
    own_fit = Fit(
        optimizer=Optimizer(name="adam", learning_rate=2e-3, clip_norm=1.0),
        epochs=20,
        batch_size=64,
        callbacks=[ReduceOnPlateau(patience=1), EarlyStopping(patience=3)],
    )
    keeps_outputs = False  # a score of each piece of the vocabulary at each place: too much
    architecture: str

    @property
    def width(self) -> int:
        """Of what the scores are made from."""
        raise NotImplementedError

    def networks(self) -> Networks:
        raise NotImplementedError

    def prepare(self) -> Prepared:
        asked, given = self.asked, self.asked.parameters
        if asked.fit.class_weight is not None:
            raise InvalidRequest("class_weight is for classes", param="fit.class_weight")
        wanted = targets.target(asked.data, asked.target)
        source = targets.text_column(asked.data, asked.inputs, wanted.name)
        self._sources, self._wanted = self._texts(source), self._texts(wanted)
        rows = asked.data.rows("train")
        self.source = self._tokenizer("source.json", [self._sources[at] for at in rows])
        self.written = self._tokenizer("target.json", [self._wanted[at] for at in rows])
        asked.pause()
        read = pieces.encoded(self.source, self._sources, given.source_length)
        answers = pieces.encoded(self.written, self._wanted, given.target_length, cut_end=True)
        before = np.zeros_like(answers)
        before[:, 0] = pieces.BEGIN
        before[:, 1:] = answers[:, :-1]
        before[answers == pieces.PADDING] = pieces.PADDING
        prepared = splits(asked.data, [read, before], answers, None)
        counted = answers[rows[:0] if asked.private else rows]
        self._counts = np.bincount(counted.ravel(), minlength=self.vocabularies()[1])
        self.own_fit = with_validation(self.own_fit, prepared)
        return prepared

    def build(self) -> Any:
        keras.utils.set_random_seed(self.asked.fit.seed)
        self._networks = self.networks()
        return self._networks.training

    def compile(self, model: Any, fit: Fit, steps: int) -> None:
        if fit.loss not in (None, LOSS):
            raise InvalidRequest(f"the recipe's loss is {LOSS}", param="fit.loss")
        if fit.metrics not in (None, ["accuracy"]):
            raise InvalidRequest("the recipe's metric is accuracy (of pieces)", param="fit.metrics")
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=pieces.PADDING, name=LOSS
        )
        optimizer = fitting.optimizer(fit, steps)
        model.compile(optimizer, loss, metrics=[PieceAccuracy()], auto_scale_loss=False)

    def judge(
        self, model: Any, rows: Rows, outputs: Array
    ) -> tuple[dict[str, float], Confusion | None]:
        """chrF of what is written, and, for translators, of the source as its own translation."""
        held_out = self.asked.data.rows("test")
        if not len(held_out):
            held_out = self.asked.data.rows("validation")
        places = held_out[:JUDGED]
        self.asked.say(f"writing {len(places)} held-out answers")
        answers = self._answers(rows.inputs[0][: len(places)])
        wanted = [self._wanted[at] for at in places]
        found = {"chrf": chrf([answer.text for answer in answers], wanted)}
        if self.asked.parameters.task == "translate":
            found["chrf_of_copying"] = chrf([self._sources[at] for at in places], wanted)
        return found, None

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        self._networks.encoder.save(folder / "encoder.keras")
        self._networks.decoder.save(folder / "decoder.keras")
        self.source.save(str(folder / "source.json"))
        self.written.save(str(folder / "target.json"))
        self._write_config(folder)
        texts = [self._sources[at] for at in shown_rows(self.asked.data)]
        answers = self._answers(shown.inputs[0])
        length = self.asked.parameters.source_length
        fitting_ones = [
            (text, answer)
            for text, answer in zip(texts, answers, strict=False)
            if len(self.source.encode(text).ids) <= length
        ] or list(zip(texts, answers, strict=False))
        # Of two pieces as good as one another either may be taken elsewhere.
        sure = [one for one in fitting_ones if one[1].margin > SURE] or fitting_ones
        rows = [{"text": text, "output": answer.text} for text, answer in sure[:COMPARED]]
        (folder / "rows.json").write_bytes(msgspec.json.encode(rows))
        return "keras_seq2seq"

    # --- for the networks ----------------------------------------------------------------------

    def scoring(self) -> Any:
        """The layer that scores each piece, which begins with how frequent they are: a network
        that has to learn this first may be driven into saturation by it, and stay there."""
        counts = self._counts.astype(np.float64) + 1.0
        counts[pieces.PADDING] = 1.0
        layer = layers.Dense(len(counts))
        layer.build((None, self.width))
        layer.bias.assign(np.log(counts / counts.sum()).astype(np.float32))
        return layer

    def vocabularies(self) -> tuple[int, int]:
        """Pieces of the source and of the target."""
        return self.source.get_vocab_size(), self.written.get_vocab_size()

    # --- within ----------------------------------------------------------------------------------

    def _texts(self, column: Column) -> list[str]:
        if self.asked.data.description.kind != "table" or column.kind not in ("text", "category"):
            raise InvalidRequest(f"{column.name} is no text", param="target")
        texts = self.asked.data.texts(column.name)
        empty = sum(not text.strip() for text in texts)
        if empty:
            raise InvalidRequest(f"{empty} rows have no {column.name}", param="dataset")
        return texts

    def _tokenizer(self, name: str, texts: list[str]) -> Tokenizer:
        path = self.asked.prepared / name
        if not path.exists():
            made = pieces.trained(
                texts, self.asked.parameters.vocabulary, ends=name == "source.json"
            )
            scratch = path.with_suffix(".new")
            made.save(str(scratch))
            scratch.replace(path)
        return Tokenizer.from_file(str(path))

    def _answers(self, source: NDArray[np.int32]) -> list[greedy.Answer]:
        written = greedy.write(
            self._networks.encoder,
            self._networks.decoder,
            source,
            self.asked.parameters.target_length,
            self.asked.pause,
        )
        return [
            greedy.Answer(self.written.decode(ids, skip_special_tokens=True), margin)
            for ids, margin in written
        ]

    def _write_config(self, folder: Path) -> None:
        given = self.asked.parameters
        states = len(self._networks.encoder.outputs) - 1
        config = {
            "task": given.task,
            "source_language": given.source_language,
            "target_language": given.target_language,
            "source_length": given.source_length,
            "target_length": given.target_length,
            "padding_id": pieces.PADDING,
            "begin_id": pieces.BEGIN,
            "end_id": pieces.END,
            "unknown_id": pieces.UNKNOWN,
            "state": [f"state_{at}" for at in range(states)],
            "architecture": self.architecture,
        }
        (folder / "config.json").write_bytes(msgspec.json.encode(config))


class PieceAccuracy(keras.metrics.Mean):  # type: ignore[misc]
    """How many next pieces are told rightly; padding does not count."""

    def __init__(self) -> None:
        super().__init__("accuracy")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        told = ops.cast(ops.argmax(y_pred, -1), "int32")
        wanted = ops.cast(y_true, "int32")
        right = ops.cast(ops.equal(told, wanted), "float32")
        counted = ops.cast(ops.not_equal(wanted, pieces.PADDING), "float32")
        return super().update_state(right, counted)


def source_mask(source: Any) -> Any:
    """[B, S]: what is no padding."""
    return ops.not_equal(source, pieces.PADDING)


def inputs(names: dict[str, tuple[int, ...]], ids: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: layers.Input(shape, dtype="int32" if name in ids else "float32", name=name)
        for name, shape in names.items()
    }
