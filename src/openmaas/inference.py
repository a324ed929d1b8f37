"""The neutral forms that travel inside OpenMaaS: Request → Event* → a final Event.

Wire formats are translated to and from these at the gateway; runtimes and tasks
speak nothing else. The structs are encoded as msgpack arrays (gateway and worker
are always of one version), so fields are only ever appended.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Task = Literal["chat", "embed", "predict", "classify", "translate", "summarize", "tag"]
Aggregation = Literal["none", "simple", "first", "average", "max"]


class Record(msgspec.Struct, array_like=True, tag=True, frozen=True, kw_only=True):
    """Base of every struct that crosses the gateway–worker border."""


# --- what is asked -------------------------------------------------------------------


class ToolCall(Record):
    """A function that the model wants called."""

    id: str
    name: str
    arguments: str  # a JSON object, as text


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Tool(Record):
    """A function that the model may call; ``parameters`` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}


class Sampling(Record):
    """How tokens are drawn and when to stop. ``None`` leaves it to the model or runtime."""

    max_tokens: int | None = None  # None: up to the context window and the server's limit
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] = []  # never part of the answer
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}  # token id → added to its logit
    logprobs: int | None = None  # None: none; 0: of the chosen token; k: and of k alternatives
    json_schema: str | None = None  # the answer is JSON text that validates against it
    ignore_eos: bool = False  # generate max_tokens whatever the model says
    # of temperature, top_p and top_k: what the caller did not say, so the model's own will do
    left_to_model: list[str] = []


class Chat(Record):
    """A conversation to continue ``n`` times; choices are numbered 0 … n−1."""

    messages: list[Message]
    tools: list[Tool] = []
    # "auto", "none", "required", or the name of the one function to call as "function:NAME"
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    sampling: Sampling = Sampling()
    n: int = 1


class Complete(Record):
    """Raw prompts (text or token ids) to continue; choice index = prompt·n + sample."""

    prompts: list[str | list[int]]
    sampling: Sampling = Sampling()
    n: int = 1
    echo: bool = False  # the prompt is part of the answer, its log-probabilities too if asked


class Embed(Record):
    """Texts (or token ids) to embed, one vector each, of unit length."""

    inputs: list[str | list[int]]
    dimensions: int | None = None  # keep the first so many, then renormalise
    truncate: bool = False  # cut what is over the model's context instead of refusing it


class Tensor(Record):
    """A named array. ``data`` is row-major and little-endian, except for BYTES, whose
    elements are each preceded by a uint32 length (Open Inference Protocol V2's form)."""

    name: str
    datatype: str  # BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64, BYTES
    shape: list[int]
    data: bytes


NUMPY = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""NumPy's name of each datatype of fixed size."""


class Predict(Record):
    """Inputs of an ordinary network; the first dimension of each is the batch."""

    inputs: list[Tensor]
    outputs: list[str] = []  # empty: all

    @property
    def rows(self) -> int:
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else 1


class Score(Record):
    """Texts, or pairs of texts, for a network that gives each a logit per label of its own."""

    inputs: list[str | tuple[str, str]]
    truncate: bool = False  # cut what is over the model's context instead of refusing it


class Tag(Record):
    """Texts in which a network finds spans, such as names; longer ones than its context are read
    in windows that overlap."""

    inputs: list[str]
    truncate: bool = False  # read no further than the context instead
    # How the labels of tokens become spans, by the names of transformers' pipelines. "first": each
    # word has the label of its first token, so that no span ends within a word; "simple": tokens
    # of one label; "average", "max": a word's label by all its tokens; "none": each token by
    # itself, with the network's own label.
    aggregation: Aggregation = "first"


class Translate(Record):
    """Sentences to translate, or passages for a network that was trained to summarize. Languages
    are the model's own codes; ``None``: its only one."""

    inputs: list[str]
    source: str | None = None
    target: str | None = None


class Loglikelihood(Record):
    """How likely a language model is to answer a conversation with each of some texts."""

    messages: list[Message]
    answers: list[str]
    # None: sums alone; k: each token too, with the k tokens that were likeliest in its place
    alternatives: int | None = None
    # Requests with the same one, which nobody else knows, share what the engine keeps of their
    # beginnings; empty: this request shares nothing.
    cache_salt: str = ""


class Attribute(Record):
    """One row or text, for which a network's gradients say what its answer is due to."""

    method: Literal["saliency", "integrated_gradients", "smoothgrad"]
    text: str | None = None  # of a network that reads texts
    inputs: list[Tensor] = []  # of an ordinary one: all its inputs, one row each
    output: str = ""  # which of an ordinary network's outputs; empty: its only one
    index: list[int] = []  # the number that is explained, within a row of that output
    # What the input is compared with: of texts "pad" (the vector of the padding token in each
    # token's place) or "zero" (a vector of zeros), of ordinary networks a tensor for each input …
    baseline: str = "pad"
    baselines: list[Tensor] = []  # … and zeros (a missing value, of columns) where none is given
    steps: int = 64  # points on the way, or noisy copies; at the least, where there is a tolerance
    most_steps: int = 1024
    # of integrated gradients: steps are added until the parts add up to the outputs' difference
    # within this share of it (or within this number, where the difference is less than 1)
    tolerance: float = 1e-3
    noise: float = 0.15  # SmoothGrad's standard deviation, as a share of the input's range
    seed: int = 0


class Tokenize(Record):
    """Texts to split into the model's tokens, special ones as it would add them."""

    inputs: list[str]


Request = (
    Chat
    | Complete
    | Embed
    | Predict
    | Score
    | Tag
    | Translate
    | Loglikelihood
    | Tokenize
    | Attribute
)


# --- what comes back -----------------------------------------------------------------


class Usage(Record):
    """What a request used: tokens for language, rows for ordinary networks."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # those of the input that the prefix cache held
    rows: int = 0


Utf8 = bytes  # under another name, as a field called ``bytes`` hides the type


class TokenLogprob(Record):
    """Natural-log probability of a token; ``alternatives`` are (text, bytes, logprob)."""

    text: str
    bytes: Utf8
    logprob: float | None  # None: the first token of a prompt has no context
    alternatives: list[tuple[str, Utf8, float]] = []


class ToolCallDelta(Record):
    """A tool call or a part of one: ``id`` and ``name`` come first, arguments accumulate."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Delta(Record):
    """New text of one choice. The delta that carries ``finish`` has no text."""

    index: int = 0
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    tool_calls: list[ToolCallDelta] | None = None
    finish: FinishReason | None = None
    # What it covers, so that an answer that is cut is known to have been so long: over a whole
    # answer they add up to its usage.
    tokens: int = 0  # of the output
    input_tokens: int = 0  # of the prompt, in the first delta that comes of it


class Finished(Record):
    """Last event of Chat and Complete."""

    usage: Usage


class Embedded(Record):
    """Only event of Embed: float32 vectors, ``count × dimensions``, little-endian."""

    dimensions: int
    data: bytes
    usage: Usage


class Predicted(Record):
    """Only event of Predict."""

    outputs: list[Tensor]
    usage: Usage


class Scored(Record):
    """Only event of Score: float32 logits, ``count × labels``, little-endian."""

    labels: int
    data: bytes
    usage: Usage


class Span(Record):
    """Characters ``start`` to ``end`` of a text, which have one label."""

    start: int  # Unicode code points from the text's beginning, as Python's strings count
    end: int  # of the character after the last one
    label: str  # without the B- or I- of the network's own, but where each token has its own span
    score: float  # probability: the mean of its tokens', or of its words'


class Tagged(Record):
    """Only event of Tag: of each text its spans, in order; none overlaps another. A text's tokens
    are counted once, those that two windows share too."""

    outputs: list[list[Span]]
    usage: Usage


class Translated(Record):
    """Only event of Translate: one text an input, and the model's mean log-probability of a
    token of it (natural), ``None`` where the engine gives none."""

    outputs: list[str]
    logprobs: list[float | None]
    usage: Usage


class Loglikelihoods(Record):
    """Only event of Loglikelihood: of each answer, the natural log-probabilities of its tokens
    added up, and how many tokens those are."""

    logprobs: list[float]
    tokens: list[int]
    usage: Usage
    details: list[list[TokenLogprob]] = []  # of each answer its tokens, where they were asked for


class Attributed(Record):
    """Only event of Attribute. The explained number is the one that the service answers with: a
    probability of a classifier, else what the network gives."""

    values: list[Tensor]  # FP32, of each input in its shape, of a text [tokens]
    offsets: list[tuple[int, int]]  # of a text's tokens: characters; equal: it stands for none
    baseline_output: float
    instance_output: float
    error: float | None  # |values added up − (instance − baseline)|; None: no such promise
    forward_passes: int  # rows that went through the network
    backward_passes: int
    usage: Usage


class Tokenized(Record):
    """Only event of Tokenize: of each input (token id, the token's bytes), in order."""

    outputs: list[list[tuple[int, Utf8]]]
    usage: Usage


class Failure(Record):
    """Last event of a request that failed; ``code`` is one of ``errors.BY_CODE``."""

    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None


Answer = (
    Finished
    | Embedded
    | Predicted
    | Scored
    | Tagged
    | Translated
    | Loglikelihoods
    | Tokenized
    | Attributed
)
Event = Delta | Answer | Failure
Final = Answer | Failure


# --- what a loaded model says of itself ----------------------------------------------


class TensorSpec(Record):
    """One input or output of a network; −1 stands for a dimension that is free."""

    name: str
    datatype: str
    shape: list[int]


class OwnSampling(Record):
    """What a language model draws its tokens with where the caller does not say."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


class ModelInfo(Record):
    """What a worker reports once its model is loaded and has answered its own probe."""

    task: Task
    runtime: str
    # request options that this model honours, of: seed, top_k, penalties, logit_bias, logprobs,
    # top_logprobs, echo_logprobs, top_echo_logprobs, json_schema, tools, dimensions, ignore_eos
    options: list[str] = []
    context_tokens: int = 0  # prompt + answer for language models; input for encoders
    sampling: OwnSampling = OwnSampling()
    dimensions: int = 0  # of an embedding
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    labels: list[str] = []  # of a classifier, tagger or network, in the order of its numbers
    multi_label: bool = False  # its labels exclude one another not: sigmoid, not softmax
    pairs: bool = False  # it reads pairs of texts, as rerankers do
    source_languages: list[str] = []  # of a translator: its own codes, any into any other …
    target_languages: list[str] = []  # … of these
    # Sequences that a language model runs at once: more wait in the gateway, where order is kept.
    # 0: as many requests as it answers in a tenth of a second.
    room: int = 0
    # Its inputs are columns, one value a row, where a value may be missing: NaN, or an empty text.
    tabular: bool = False
    layers: list[str] = []  # of the sandbox, that confine its worker
