"""The parameters of each recipe, with defaults that work. What checks a job imports this alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from openmaas.errors import InvalidRequest
from openmaas.training.spec import RecipeName

Rate = Annotated[float, Meta(ge=0, lt=1)]
Units = Annotated[int, Meta(ge=1, le=4096)]
Layers = Annotated[int, Meta(ge=1, le=12)]
Vocabulary = Annotated[int, Meta(ge=16, le=200_000)]
Length = Annotated[int, Meta(ge=4, le=4096)]
Source = Annotated[int, Meta(ge=12, le=4096)]  # what a server tries a translator with fits
Language = Annotated[str, Meta(pattern=r"^([A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*)?$")]  # BCP 47


class _Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class TextEmbeddings(_Parameters, frozen=True):
    """The mean of word vectors, then dense layers."""

    vocabulary: Vocabulary = 20_000  # most frequent words of the training rows
    length: Length = 512  # words of a text that are read, at most
    dimensions: Units = 64  # of a word's vector
    units: Annotated[int, Meta(ge=0, le=4096)] = 0  # of a hidden layer; 0: none
    dropout: Rate = 0.3


class TextRecurrent(_Parameters, frozen=True):
    """A recurrent network that reads a text forwards and backwards."""

    vocabulary: Vocabulary = 10_000
    length: Length = 128
    dimensions: Units = 64
    units: Units = 64  # of each direction
    layers: Layers = 1
    bidirectional: bool = True
    dropout: Rate = 0.5


class TextTransformer(_Parameters, frozen=True):
    """A Transformer's encoder, whose outputs are averaged."""

    vocabulary: Vocabulary = 10_000
    length: Length = 128
    dimensions: Units = 64  # a multiple of heads
    heads: Annotated[int, Meta(ge=1, le=64)] = 4
    layers: Layers = 1
    units: Units = 128  # of the feed-forward part
    dropout: Rate = 0.2


class TextEncoder(_Parameters, frozen=True):
    """A linear layer on the vectors of a sentence encoder that is not trained."""

    encoder: Annotated[str, Meta(min_length=1, max_length=64)] | None = None  # a model; None: any
    length: Length = 256  # tokens of a text that are read, at most what the encoder reads


class Seq2SeqRnn(_Parameters, frozen=True):
    """A recurrent encoder and decoder with attention."""

    vocabulary: Vocabulary = 4000  # pieces of either language
    source_length: Source = 64  # pieces that are read
    target_length: Length = 64  # pieces that are written
    dimensions: Units = 128
    units: Units = 256
    layers: Annotated[int, Meta(ge=1, le=4)] = 1  # of the encoder and of the decoder
    cell: Literal["gru", "lstm"] = "gru"
    attention: Literal["luong", "bahdanau"] = "luong"
    dropout: Rate = 0.2
    task: Literal["translate", "summarize"] = "translate"
    source_language: Language = ""  # of a translator
    target_language: Language = ""


class Seq2SeqTransformer(_Parameters, frozen=True):
    """A Transformer's encoder and decoder."""

    vocabulary: Vocabulary = 4000
    source_length: Source = 64
    target_length: Length = 64
    dimensions: Units = 128  # a multiple of heads
    heads: Annotated[int, Meta(ge=1, le=64)] = 4
    layers: Layers = 2  # of the encoder and of the decoder
    units: Units = 256  # of the feed-forward parts
    dropout: Rate = 0.1
    task: Literal["translate", "summarize"] = "translate"
    source_language: Language = ""
    target_language: Language = ""


class TabularMlp(_Parameters, frozen=True):
    """Dense layers on normalised numbers and embedded categories."""

    units: Units = 64
    layers: Layers = 2
    dropout: Rate = 0.1
    dimensions: Annotated[int, Meta(ge=1, le=256)] = 8  # of a category's vector, at most
    task: Literal["auto", "classification", "regression"] = "auto"


class ImageCnn(_Parameters, frozen=True):
    """Convolutions in blocks, each half the size of the one before it."""

    filters: Annotated[int, Meta(ge=1, le=512)] = 32  # of the first block; then twice as many
    blocks: Annotated[int, Meta(ge=1, le=6)] = 2
    units: Units = 128
    dropout: Rate = 0.3
    augment: bool = True  # shift images by up to a tenth of a side, at random, while training


KINDS: dict[RecipeName, type[_Parameters]] = {
    "text_embeddings": TextEmbeddings,
    "text_lstm": TextRecurrent,
    "text_gru": TextRecurrent,
    "text_transformer": TextTransformer,
    "text_encoder": TextEncoder,
    "seq2seq_rnn": Seq2SeqRnn,
    "seq2seq_transformer": Seq2SeqTransformer,
    "tabular_mlp": TabularMlp,
    "image_cnn": ImageCnn,
}


def parsed(recipe: RecipeName | None, parameters: dict[str, Any]) -> Any:
    """A recipe's parameters, defaults filled in; of an own network there are none.

    Raises:
        InvalidRequest: one that the recipe has not, or a value out of range.
    """
    if recipe is None:
        if parameters:
            raise InvalidRequest("parameters are for recipes, not for networks", param="parameters")
        return None
    kind = KINDS[recipe]
    try:
        found = msgspec.convert(parameters, kind)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise InvalidRequest(
            f"parameters: {error} (there are: {known})", param="parameters"
        ) from None
    if isinstance(found, TextTransformer | Seq2SeqTransformer) and found.dimensions % found.heads:
        raise InvalidRequest("dimensions must be a multiple of heads", param="parameters")
    if isinstance(found, Seq2SeqRnn | Seq2SeqTransformer) and found.task == "translate":
        for name in ("source_language", "target_language"):
            if not getattr(found, name):
                raise InvalidRequest(f"a translator has a {name}: de, en …", param="parameters")
    return found
