"""What is to be trained, and how: the forms that the API takes and the trainer reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # of a model
Column = Annotated[str, Meta(min_length=1, max_length=200)]
Id = Annotated[str, Meta(pattern=r"^[a-z]+_[0-9a-f]{1,64}$")]
Positive = Annotated[int, Meta(ge=1, le=1 << 31)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Backend = Literal["jax", "tensorflow", "torch"]

RecipeName = Literal[
    "text_embeddings",
    "text_lstm",
    "text_gru",
    "text_transformer",
    "text_encoder",
    "seq2seq_rnn",
    "seq2seq_transformer",
    "tabular_mlp",
    "image_cnn",
]


class _Form(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Network(_Form):
    """A Keras 3 network of the caller's own: one of the two."""

    config: dict[str, Any] | None = None  # as ``json.loads(model.to_json())``
    upload: Id | None = None  # of a ``.keras`` file; its weights are where training begins


class Optimizer(_Form):
    name: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam", "adamax", "lion"] = "adam"
    learning_rate: Annotated[float, Meta(gt=0, le=100)] | None = None  # None: Keras's default
    momentum: Fraction | None = None  # of sgd and rmsprop
    nesterov: bool | None = None  # of sgd
    weight_decay: Annotated[float, Meta(ge=0, le=10)] | None = None
    beta_1: Fraction | None = None
    beta_2: Fraction | None = None
    clip_norm: Annotated[float, Meta(gt=0, le=1e6)] | None = None  # of all gradients together


class EarlyStopping(_Form, tag_field="name", tag="early_stopping"):
    monitor: str = "val_loss"
    patience: Annotated[int, Meta(ge=0, le=100_000)] = 3
    min_delta: Annotated[float, Meta(ge=0)] = 0.0
    restore_best: bool = True


class ReduceOnPlateau(_Form, tag_field="name", tag="reduce_lr_on_plateau"):
    monitor: str = "val_loss"
    factor: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Meta(ge=0, le=100_000)] = 2
    min_learning_rate: Annotated[float, Meta(ge=0)] = 0.0


class CosineDecay(_Form, tag_field="name", tag="cosine_decay"):
    """Over all epochs, after a linear warm-up."""

    warmup: Fraction = 0.0  # of all steps
    floor: Fraction = 0.0  # of the learning rate


class ExponentialDecay(_Form, tag_field="name", tag="exponential_decay"):
    rate: Annotated[float, Meta(gt=0, le=1)] = 0.96  # of the learning rate an epoch


Callback = EarlyStopping | ReduceOnPlateau | CosineDecay | ExponentialDecay


class Fit(_Form):
    """How weights are fitted. ``None``: the recipe's own choice; of a network, Keras's habits."""

    optimizer: Optimizer | str | None = None  # a name alone: with its defaults
    loss: str | None = None  # a Keras name: sparse_categorical_crossentropy, mse …
    metrics: list[str] | None = None  # Keras names: accuracy, mae, auc …
    epochs: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    batch_size: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Meta(ge=0)]] | None = None
    callbacks: list[Callback] | None = None  # []: none, whatever the recipe has
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    backend: Backend = "jax"


class Privacy(_Form, kw_only=True):
    """What may be learnt of any one row that is trained on: differential privacy (ε, δ)."""

    epsilon: Annotated[float, Meta(gt=0, le=1000)]  # at most; what was spent is on the card
    delta: Annotated[float, Meta(gt=0, le=0.01)]  # below 1 / rows
    max_grad_norm: Annotated[float, Meta(gt=0, le=1e6)] = 1.0  # of each row's gradient
    # pseudorandom: from the seed, which is no secret; for runs that are to be repeated
    noise: Literal["cryptographic", "pseudorandom"] = "cryptographic"
    # of the noise's deviation to max_grad_norm; None: the least that keeps to ε
    noise_multiplier: Annotated[float, Meta(ge=0.4, le=10_000)] | None = None


class Budget(_Form):
    """Of a data set: what all that is learnt of its rows may come to."""

    epsilon: Annotated[float, Meta(gt=0, le=10_000)]
    delta: Annotated[float, Meta(gt=0, le=0.1)]


class SessionPrivacy(Privacy, kw_only=True):
    """Of a session whose batches the server draws: each ``forward_backward`` is a step."""

    steps: Annotated[int, Meta(ge=1, le=10_000_000)]  # at most
    batch_size: Annotated[int, Meta(ge=1, le=1 << 20)]  # rows of a step, on average


class Promotion(_Form):
    """Serve the version at once if a metric of the held-out rows allows it."""

    metric: str = "accuracy"
    at_least: float | None = None
    at_most: float | None = None


class JobSpec(_Form):
    """A training run: data, and a recipe or an own network."""

    model: Name  # what the version is registered under
    dataset: Id
    recipe: RecipeName | None = None  # or …
    network: Network | None = None  # … of the caller's own
    inputs: list[Column] | None = None  # columns or arrays; None: all but the target
    target: Column | None = None  # None: the one that is called label, target, y or the like
    parameters: dict[str, Any] = {}  # of the recipe: units, layers, vocabulary …
    fit: Fit = Fit()
    privacy: Privacy | None = None  # None: what is learnt may tell of single rows
    checkpoint_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0  # and after each epoch
    # True: serve the version as soon as it is there; a bound: if it holds
    promote: bool | Promotion = False
    description: Annotated[str, Meta(max_length=4000)] = ""


class SessionSpec(_Form):
    """A network whose gradient steps are calls: an own one, or a recipe's on a data set."""

    model: Name
    network: Network | None = None  # or …
    recipe: RecipeName | None = None  # … on a data set, which gives it tokenizer and labels
    dataset: Id | None = None  # its rows can then be named by number
    inputs: list[Column] | None = None
    target: Column | None = None
    parameters: dict[str, Any] = {}
    loss: str | None = None
    optimizer: Optimizer | str | None = None
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    dtype: Literal["float32", "float64"] = "float32"  # of weights and computation
    privacy: SessionPrivacy | None = None
    idle_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 600.0  # then it is put away, resumable
