"""A linear layer on the vectors of a sentence encoder that is not trained itself.

Vectors are made once, by the encoder's serving form, before training begins.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from openmaas.errors import InvalidRequest
from openmaas.inference import Embed, Embedded
from openmaas.registry.manifest import MANIFEST_NAME, decode
from openmaas.runtimes import openvino_embeddings
from openmaas.training import targets
from openmaas.training.recipes.base import Prepared, Recipe, row_weights, splits
from openmaas.training.recipes.habits import shown_rows, with_validation
from openmaas.training.recipes.text import cut, write_config, write_rows
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import EarlyStopping, Fit, Optimizer
from openmaas.training.task import ExportKind

AT_ONCE = 64  # texts of an engine call
PART = 512  # texts whose vectors are kept together
SCALE = 20.0  # components of unit vectors are about 0.05; it is part of the layer afterwards
STRENGTH = 3.0  # of the fit against the weights' size: logistic regression's C on unit vectors


class TextEncoder(Recipe):
    own_fit = Fit(
        optimizer=Optimizer(learning_rate=5e-3),
        epochs=60,
        batch_size=64,
        callbacks=[EarlyStopping(patience=5)],
    )

    def prepare(self) -> Prepared:
        asked = self.asked
        wanted = targets.target(asked.data, asked.target)
        column = targets.text_column(asked.data, asked.inputs, wanted.name)
        numbers, self.labels = targets.classes(asked.data, wanted)
        self._folder, self._context = self._encoder()
        self._texts = asked.data.texts(column.name)
        vectors = self._vectors()
        weights = row_weights(asked, numbers, self.labels)
        prepared = splits(asked.data, [vectors], numbers, weights)
        self._width = vectors.shape[1]
        self.own_fit = with_validation(self.own_fit, prepared)
        return prepared

    def build(self) -> Any:
        keras.utils.set_random_seed(self.asked.fit.seed)
        vector = keras.Input((self._width,), name="vector")
        x = layers.Rescaling(SCALE)(vector)
        rows = len(self.asked.data.rows("train"))
        small = keras.regularizers.L2(SCALE**2 / (2 * STRENGTH * rows))
        labels = len(self.labels or [])
        head = layers.Dense(labels, activation="softmax", kernel_regularizer=small, name="head")
        return keras.Model(vector, head(x))

    def export(self, model: Any, shown: Rows, outputs: Array, folder: Path) -> ExportKind:
        kernel, bias = (np.asarray(one) for one in model.get_layer("head").get_weights())
        weight = np.ascontiguousarray((kernel * np.float32(SCALE)).T)
        save_file({"weight": weight, "bias": bias}, folder / "head.safetensors")
        write_config(folder, self.labels or [], self._context)
        shutil.copytree(self._folder, folder / "encoder")
        texts = [self._read(self._texts[at]) for at in shown_rows(self.asked.data)[: len(outputs)]]
        write_rows(folder, texts, outputs)
        return "encoder_head"

    # --- vectors -----------------------------------------------------------------------------

    def _encoder(self) -> tuple[Path, int]:
        """Its folder, and how many tokens it reads."""
        folder = self.asked.encoder
        if folder is None:
            raise InvalidRequest("there is no sentence encoder", param="parameters.encoder")
        manifest = decode((folder / MANIFEST_NAME).read_bytes())
        if manifest.format != "openvino-encoder":
            raise InvalidRequest(
                f"the encoder is of format {manifest.format}", param="parameters.encoder"
            )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        return folder, manifest.context_tokens

    def _read(self, text: str) -> str:
        """A text as far as it is read: room is left for the tokens that begin and end it."""
        most = min(self.asked.parameters.length, self._context)
        special = self._tokenizer.num_special_tokens_to_add(False)
        return cut(self._tokenizer, text, max(1, most - special))

    def _vectors(self) -> NDArray[np.float32]:
        """Of all texts; what an earlier run has made is read. What is only learnt from is computed
        as fast as this CPU can (bfloat16 where it has units for that), what is judged or shown as
        it will be served."""
        data = self.asked.data
        exact = np.ones(len(self._texts), bool)
        exact[data.rows("train")] = False
        exact[shown_rows(data)] = True
        options = {"truncate": True, "threads": self.asked.threads}
        fast = openvino_embeddings.open(self._folder, options)
        slow = openvino_embeddings.open(self._folder, options | {"precision": "f32"})
        parts = []
        for start in range(0, len(self._texts), PART):
            path = self.asked.prepared / f"vectors-{start // PART}.npy"
            if not path.exists():
                here = exact[start : start + PART]
                found = np.empty((len(here), slow.info.dimensions), np.float32)
                for runtime, chosen in ((fast, ~here), (slow, here)):
                    places = np.flatnonzero(chosen)
                    texts = [self._read(self._texts[start + at]) for at in places]
                    if texts:
                        found[places] = self._embedded(runtime, texts)
                scratch = path.with_suffix(".new")
                with open(scratch, "wb") as file:
                    np.save(file, found, allow_pickle=False)
                scratch.replace(path)
                done = min(start + PART, len(self._texts))
                self.asked.say(f"{done} of {len(self._texts)} texts have their vectors")
            parts.append(np.load(path, allow_pickle=False))
        fast.close()
        slow.close()
        return np.concatenate(parts)

    def _embedded(self, runtime: Any, texts: list[str]) -> NDArray[np.float32]:
        found = []
        for start in range(0, len(texts), AT_ONCE):
            self.asked.pause()
            (answer,) = runtime.run([Embed(inputs=[*texts[start : start + AT_ONCE]])])
            assert isinstance(answer, Embedded)
            found.append(np.frombuffer(answer.data, "<f4").reshape(-1, answer.dimensions))
        return np.concatenate(found)
