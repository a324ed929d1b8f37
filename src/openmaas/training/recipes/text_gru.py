"""As ``text_recurrent.py``, of GRU cells."""

from __future__ import annotations

from keras import layers

from openmaas.training.recipes.text_recurrent import TextRecurrent


class TextGru(TextRecurrent):
    cell = layers.GRU
