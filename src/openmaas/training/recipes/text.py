"""What the text classifiers share: words, labels, and what is served.

A tokenizer of words (in small letters; punctuation stands alone) is made from the training rows;
networks take its ids, int32 [texts, length], cut at the end and padded there with 0, and answer a
probability for each label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from openmaas.errors import InvalidRequest
from openmaas.training import targets
from openmaas.training.recipes.base import Prepared, Recipe, row_weights, splits
from openmaas.training.recipes.habits import shown_rows, with_validation
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import EarlyStopping, Fit, Optimizer
from openmaas.training.task import ExportKind

PADDING, UNKNOWN = "[PAD]", "[UNK]"  # ids 0 and 1
LEAST = 2  # times that a word must be there to have an id of its own
MANY = 5000  # rows
MULTIPLE = 8  # of which lengths are
AT_ONCE = 4096  # texts whose tokens are in memory as objects
_TOKENIZER = "tokenizer.json"


class TextRecipe(Recipe):
    own_fit = Fit(
        optimizer=Optimizer(learning_rate=2e-3),
        epochs=20,
        callbacks=[EarlyStopping(patience=3)],
    )

    def prepare(self) -> Prepared:
        asked = self.asked
        wanted = targets.target(asked.data, asked.target)
        column = targets.text_column(asked.data, asked.inputs, wanted.name)
        numbers, self.labels = targets.classes(asked.data, wanted)
        texts = asked.data.texts(column.name)
        self.tokenizer = self._tokenizer([texts[at] for at in asked.data.rows("train")])
        asked.pause()
        self._texts = texts
        ids = encoded(self.tokenizer, texts, asked.parameters.length)
        # No longer than the longest text that is trained on.
        longest = int((ids[asked.data.rows("train")] != 0).sum(1).max(initial=1))
        self.length = min(asked.parameters.length, -(-longest // MULTIPLE) * MULTIPLE)
        ids = np.ascontiguousarray(ids[:, : self.length])
        weights = row_weights(asked, numbers, self.labels)
        prepared = splits(asked.data, [ids], numbers, weights)
        own = with_validation(self.own_fit, prepared)
        # Many rows make enough steps of larger batches, which cost less a row.
        batch = 32 if prepared.train.size < MANY else 128
        self.own_fit = msgspec.structs.replace(own, batch_size=batch)
        return prepared

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        length = self.length
        model.save(folder / "model.keras")
        self.tokenizer.save(str(folder / _TOKENIZER))
        write_config(folder, self.labels or [], length)
        texts = [self._texts[at] for at in shown_rows(self.asked.data)[: len(outputs)]]
        write_rows(folder, [cut(self.tokenizer, text, length) for text in texts], outputs)
        return "keras_classifier"

    @property
    def vocabulary(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def _tokenizer(self, texts: list[str]) -> Tokenizer:
        path = self.asked.prepared / _TOKENIZER
        if not path.exists():
            words(texts, self.asked.parameters.vocabulary).save(str(path))
        return Tokenizer.from_file(str(path))


def words(texts: list[str], most: int) -> Tokenizer:
    """A tokenizer of the most frequent words.

    Raises:
        InvalidRequest: there are no words.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=most,
        min_frequency=LEAST if len(texts) > 100 else 1,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= 2:
        raise InvalidRequest("the texts to train on hold no words")
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: list[str], length: int) -> NDArray[np.int32]:
    """[texts, length]; padded with 0."""
    ids = np.zeros((len(texts), length), np.int32)
    for start in range(0, len(texts), AT_ONCE):
        batch = tokenizer.encode_batch_fast(texts[start : start + AT_ONCE])
        for at, encoding in enumerate(batch, start):
            found = encoding.ids[:length]
            ids[at, : len(found)] = found
    return ids


def cut(tokenizer: Tokenizer, text: str, length: int) -> str:
    """A text as far as its first ``length`` tokens go."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return text if len(offsets) <= length else text[: offsets[length - 1][1]]


def write_config(folder: Path, labels: list[str], length: int) -> None:
    config = {
        "id2label": {str(at): label for at, label in enumerate(labels)},
        "max_position_embeddings": length,
        "problem_type": "single_label_classification",
    }
    (folder / "config.json").write_bytes(msgspec.json.encode(config))


def write_rows(folder: Path, texts: list[str], outputs: Array) -> None:
    rows = [
        {"text": text, "probabilities": output.tolist()}
        for text, output in zip(texts, outputs, strict=True)
        if text.strip()
    ]
    (folder / "rows.json").write_bytes(msgspec.json.encode(rows))
