"""As ``text_recurrent.py``, of LSTM cells."""

from __future__ import annotations

from keras import layers

from openmaas.training.recipes.text_recurrent import TextRecurrent


class TextLstm(TextRecurrent):
    cell = layers.LSTM
