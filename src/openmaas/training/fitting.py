"""Optimizer, loss and metrics of a network, from their names."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import keras
import msgspec

from openmaas.errors import InvalidRequest
from openmaas.training.spec import CosineDecay, ExponentialDecay, Fit, Optimizer, ReduceOnPlateau

OPTIMIZERS: dict[str, Any] = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "nadam": keras.optimizers.Nadam,
    "adamax": keras.optimizers.Adamax,
    "lion": keras.optimizers.Lion,
}
LOSSES = frozenset(
    """
    sparse_categorical_crossentropy categorical_crossentropy binary_crossentropy
    binary_focal_crossentropy categorical_focal_crossentropy categorical_hinge hinge squared_hinge
    huber log_cosh kl_divergence poisson mse mean_squared_error mae mean_absolute_error mape
    mean_absolute_percentage_error msle mean_squared_logarithmic_error cosine_similarity
    """.split()
)
METRICS = frozenset(
    """
    accuracy acc binary_accuracy categorical_accuracy sparse_categorical_accuracy
    top_k_categorical_accuracy sparse_top_k_categorical_accuracy auc precision recall r2_score
    mse mean_squared_error mae mean_absolute_error mape mean_absolute_percentage_error msle
    mean_squared_logarithmic_error root_mean_squared_error hinge squared_hinge categorical_hinge
    kl_divergence poisson cosine_similarity binary_crossentropy categorical_crossentropy
    sparse_categorical_crossentropy
    """.split()
)
_HAVE_MOMENTUM = ("sgd", "rmsprop")
_HAVE_BETAS = ("adam", "adamw", "nadam", "adamax", "lion")

Target = Literal["classes", "one_hot", "numbers"]
"""What a network learns: the number of a class, a row of 0 and 1, or other numbers."""


def filled(fit: Fit, own: Fit) -> Fit:
    """A fit with its gaps filled from another one."""
    gaps = {
        name: getattr(own, name)
        for name in (
            "optimizer", "loss", "metrics", "epochs", "batch_size", "class_weight", "callbacks",
        )
        if getattr(fit, name) is None
    }  # fmt: skip
    return msgspec.structs.replace(fit, **gaps)


def named(optimizer: Optimizer | str | None) -> Optimizer:
    """
    Raises:
        InvalidRequest: there is no optimizer of that name.
    """
    if optimizer is None:
        return Optimizer(name="rmsprop")  # as ``compile`` does
    if isinstance(optimizer, Optimizer):
        return optimizer
    try:
        return msgspec.convert({"name": optimizer.lower()}, Optimizer)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"no optimizer {optimizer[:64]!r}; there are {', '.join(OPTIMIZERS)}",
            param="fit.optimizer",
        ) from None


def optimizer(fit: Fit, steps: int) -> Any:
    """Keras's optimizer, with its schedule if the callbacks name one.

    Args:
        steps: of an epoch.

    Raises:
        InvalidRequest: a setting that this optimizer has not, or two that exclude one another.
    """
    asked = named(fit.optimizer)
    kind = OPTIMIZERS[asked.name]
    settings: dict[str, Any] = {
        "global_clipnorm": asked.clip_norm,
        "weight_decay": asked.weight_decay,
        "momentum": asked.momentum,
        "nesterov": asked.nesterov,
        "beta_1": asked.beta_1,
        "beta_2": asked.beta_2,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, having in (
        ("momentum", _HAVE_MOMENTUM),
        ("nesterov", ("sgd",)),
        ("beta_1", _HAVE_BETAS),
        ("beta_2", _HAVE_BETAS),
    ):
        if name in settings and asked.name not in having:
            raise InvalidRequest(
                f"{asked.name} has no {name}; {', '.join(having)} have", param="fit.optimizer"
            )
    rate = asked.learning_rate
    if rate is None:
        rate = inspect.signature(kind).parameters["learning_rate"].default
    return kind(learning_rate=_schedule(fit, rate, steps), **settings)


def _schedule(fit: Fit, rate: float, steps: int) -> Any:
    callbacks = fit.callbacks or []
    schedules = [one for one in callbacks if isinstance(one, CosineDecay | ExponentialDecay)]
    if not schedules:
        return rate
    if len(schedules) > 1 or any(isinstance(one, ReduceOnPlateau) for one in callbacks):
        raise InvalidRequest(
            "one of cosine_decay, exponential_decay and reduce_lr_on_plateau sets the learning "
            "rate, not several",
            param="fit.callbacks",
        )
    one = schedules[0]
    if isinstance(one, ExponentialDecay):
        return keras.optimizers.schedules.ExponentialDecay(rate, steps, one.rate)
    total = steps * (fit.epochs or 1)
    warm = int(total * one.warmup)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warm else rate,
        max(1, total - warm),
        alpha=one.floor,
        warmup_target=rate if warm else None,
        warmup_steps=warm,
    )


def check_names(fit: Fit) -> None:
    """
    Raises:
        InvalidRequest: there is no such optimizer, loss or metric.
    """
    named(fit.optimizer)
    if fit.loss is not None and fit.loss not in LOSSES:
        raise InvalidRequest(
            f"no loss {fit.loss[:64]!r}; there are {', '.join(sorted(LOSSES))}", param="fit.loss"
        )
    for name in fit.metrics or []:
        if name not in METRICS:
            raise InvalidRequest(
                f"no metric {name[:64]!r}; there are {', '.join(sorted(METRICS))}",
                param="fit.metrics",
            )


def compile_network(model: Any, fit: Fit, target: Target, steps: int) -> None:
    """Gives a network its optimizer, loss and metrics; what it brings with it is kept where the
    fit says nothing.

    Raises:
        InvalidRequest: a name that is not known, or a loss that cannot be told from the network.
    """
    check_names(fit)
    own = model.compiled
    if own and fit.optimizer is None and fit.loss is None and fit.metrics is None:
        if any(isinstance(one, CosineDecay | ExponentialDecay) for one in fit.callbacks or []):
            raise InvalidRequest(
                "a schedule needs an optimizer in the fit: the network's own has its own learning "
                "rate",
                param="fit.callbacks",
            )
        return
    used = model.optimizer if own and fit.optimizer is None else optimizer(fit, steps)
    loss: Any = fit.loss if fit.loss is not None else model.loss if own else None
    if loss is None:
        loss = inferred_loss(model, target)
    metrics: Any = fit.metrics
    if metrics is None:
        metrics = [] if target == "numbers" else ["accuracy"]
        if own:
            serialized = model.get_compile_config()["metrics"]
            metrics = keras.saving.deserialize_keras_object(serialized)
    model.compile(used, loss, metrics=metrics, auto_scale_loss=False)


def inferred_loss(model: Any, target: Target) -> str:
    """From how a network ends and what it learns.

    Raises:
        InvalidRequest: classes, but no probabilities.
    """
    last = last_activation(model)
    if last == "softmax":
        several = target == "classes"
        return "sparse_categorical_crossentropy" if several else "categorical_crossentropy"
    if last == "sigmoid":
        return "binary_crossentropy"
    if target == "numbers":
        return "mse"
    raise InvalidRequest(
        f"the network ends in {last or 'no activation'}, so its loss cannot be told: end it in "
        "softmax or sigmoid, or name a loss",
        param="fit.loss",
    )


def last_activation(model: Any) -> str | None:
    """``softmax``, ``sigmoid`` … of the layer that gives the network's output."""
    layer = model.outputs[0]._keras_history.operation
    while hasattr(layer, "layers") and layer.layers:  # a network within it
        layer = layer.outputs[0]._keras_history.operation
    if type(layer).__name__ == "Softmax":
        return "softmax"
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", None)
