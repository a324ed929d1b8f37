"""One job, from its data to its export."""

from __future__ import annotations

import importlib
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from openmaas.errors import InvalidRequest, TrainingFailed
from openmaas.training import curve, divergence, fitting, frameworks, loop, parameters, task
from openmaas.training.data import Dataset
from openmaas.training.loop import Control, Fitted, Plan
from openmaas.training.network import first_line
from openmaas.training.recipes.base import SHOWN, Asked, Prepared, Recipe
from openmaas.training.rows import Array, Rows
from openmaas.training.spec import Fit, JobSpec
from openmaas.training.task import CURVE, EXPORT, Confusion, Result, Task

ANSWER_BYTES = 1 << 30  # of all held-out rows
_CLASSES = {
    "text_embeddings": "TextEmbeddings",
    "text_lstm": "TextLstm",
    "text_gru": "TextGru",
    "text_transformer": "TextTransformer",
    "text_encoder": "TextEncoder",
    "seq2seq_rnn": "Seq2SeqRnn",
    "seq2seq_transformer": "Seq2SeqTransformer",
    "tabular_mlp": "TabularMlp",
    "image_cnn": "ImageCnn",
}


def recipe(name: str | None) -> type[Recipe]:
    """A recipe's class; ``None``: that of networks of the caller's own."""
    if name is None:
        from openmaas.training.recipes.own import OwnNetwork

        return OwnNetwork
    module = importlib.import_module(f"openmaas.training.recipes.{name}")
    found: type[Recipe] = getattr(module, _CLASSES[name])
    return found


def train(given: Task, folder: Path, control: Any) -> Result:
    """Everything between ``job.json`` and ``result.json``.

    Args:
        control: as ``trainer.Control``.

    Raises:
        InvalidRequest: data, network, parameters and fit do not go together.
        TrainingFailed: the loss is no finite number any more.
        Paused, Stopped, StorageFull
    """
    fitting.check_names(given.spec.fit)
    chosen = recipe(given.spec.recipe)(_asked(given, folder, control))
    prepared = chosen.prepare()
    control.pause()
    fit = fitting.filled(given.spec.fit, chosen.own_fit)
    private = _private(given.spec, fit, prepared, folder)
    model, engine = _engine(chosen, prepared, fit, private)
    # What draws the curve is read while networks are compiled.
    threading.Thread(target=frameworks.matplotlib, daemon=True).start()
    fitted = _fit(engine, prepared, _plan(given.spec, fit, folder), control, private)
    engine.finish()
    control.pause()
    metrics, confusion, shown, outputs = _judge(chosen, model, engine, prepared)
    kind = chosen.export(model, shown, outputs, _fresh(folder / EXPORT))
    curve.draw(fitted.history, folder / CURVE, given.spec.model, fitted.best_epoch)
    return Result(
        kind=kind,
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
        split=prepared.held_out[0],  # type: ignore[arg-type]
        confusion=confusion,
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        parameters=msgspec.to_builtins(chosen.asked.parameters) or {},
        fit=_as_used(fit, model),
        weights=sum(math.prod(one.shape) for one in model.trainable_variables),
        rows=dict(chosen.asked.data.description.splits),
        seconds=round(fitted.seconds, 3),
        libraries=frameworks.versions(fit.backend),
        privacy=None if private is None else msgspec.to_builtins(private.guarantee()),
    )


def _private(spec: JobSpec, fit: Fit, prepared: Prepared, folder: Path) -> Any:
    """A private run; None: it is none. Only now: what counts its cost takes a second to import."""
    if spec.privacy is None:
        return None
    from openmaas.training.differential_privacy.private import Private

    return Private(spec.privacy, fit, prepared, spec.recipe, folder)


def _asked(given: Task, folder: Path, control: Any) -> Asked:
    spec = given.spec
    prepared = folder / task.PREPARED
    prepared.mkdir(exist_ok=True)
    return Asked(
        data=Dataset(Path(given.dataset)),
        inputs=spec.inputs,
        target=spec.target,
        parameters=parameters.parsed(spec.recipe, spec.parameters),
        fit=spec.fit,
        prepared=prepared,
        encoder=None if given.encoder is None else Path(given.encoder),
        network=spec.network,
        network_file=None if given.network is None else _own_copy(Path(given.network), folder),
        pause=control.pause,
        say=control.tell,
        threads=given.threads,
        private=spec.privacy is not None,
    )


def _own_copy(path: Path, folder: Path) -> Path:
    """Keras unpacks an archive beside it, which is allowed in the job's own folder alone."""
    copy = folder / "network.keras"
    if path != copy:  # the supervisor puts it there
        shutil.copyfile(path, copy)
    return copy


def _engine(chosen: Recipe, prepared: Prepared, fit: Fit, private: Any) -> tuple[Any, Any]:
    """The network, compiled, and what trains it."""
    batch = min(fit.batch_size or 32, prepared.train.size)
    try:
        model = chosen.build()
        chosen.compile(model, fit, -(-prepared.train.size // batch))
        if chosen.keeps_outputs:
            _bound_answers(model, prepared)
        later = [one for one in (prepared.validation, prepared.test) if one is not None]
        if private is not None:
            return model, private.engine(model, later, chosen.keeps_outputs)
        if fit.backend == "jax":
            from openmaas.training.loop_jax import JaxEngine

            return model, JaxEngine(model, prepared.train, batch, later, chosen.keeps_outputs)
        from openmaas.training.loop_keras import KerasEngine

        return model, KerasEngine(model, prepared.train, batch)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"Keras refuses network and data together: {first_line(error)}") from (
            error
        )


def _bound_answers(model: Any, prepared: Prepared) -> None:
    """
    Raises:
        InvalidRequest: the answers to the held-out rows would not fit into memory.
    """
    _, rows = prepared.held_out
    numbers = math.prod(side or 1 for side in model.outputs[0].shape[1:])
    if rows is not None and 4 * rows.size * numbers > ANSWER_BYTES:
        raise InvalidRequest(
            f"the network answers {numbers} numbers a row, too many for {rows.size} held-out rows; "
            "hold out fewer",
            param="dataset",
        )


def _plan(spec: JobSpec, fit: Fit, folder: Path) -> Plan:
    return Plan(
        epochs=fit.epochs or 1,
        batch=fit.batch_size or 32,
        seed=fit.seed,
        callbacks=fit.callbacks or [],
        checkpoints=folder / task.CHECKPOINTS,
        checkpoint_seconds=spec.checkpoint_seconds,
    )


def _fit(engine: Any, prepared: Prepared, plan: Plan, control: Control, private: Any) -> Fitted:
    plan = msgspec.structs.replace(plan, batch=min(plan.batch, prepared.train.size))
    if private is not None:
        found: Fitted = private.fit(engine, plan, control)
        return found
    try:
        return loop.Loop(engine, prepared.train, prepared.validation, plan, control).run()
    except loop.Diverged as error:
        raise TrainingFailed(
            divergence.explain(error, prepared.train), cause="training_diverged"
        ) from None


def _judge(
    chosen: Recipe, model: Any, engine: Any, prepared: Prepared
) -> tuple[dict[str, float], Confusion | None, Rows, Array]:
    """Metrics of the held-out rows, and some of these rows with the network's answers."""
    _, rows = prepared.held_out
    if rows is None:
        shown = prepared.train.take(slice(0, SHOWN))
        _, outputs = engine.evaluate(shown, outputs=chosen.keeps_outputs)
        return {}, None, shown, _first(outputs)
    metrics, outputs = engine.evaluate(rows, outputs=chosen.keeps_outputs)
    # Weights of rows are for training; the mean over outputs is what is told.
    more, confusion = chosen.judge(model, rows.take(slice(0, rows.size)), _all(outputs))
    return metrics | more, confusion, rows.take(slice(0, SHOWN)), _first(outputs)


def _all(outputs: Array | None) -> Array:
    return np.zeros((0, 0), np.float32) if outputs is None else outputs


def _first(outputs: Array | None) -> Array:
    return _all(outputs)[:SHOWN]


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _as_used(fit: Fit, model: Any) -> dict[str, Any]:
    used: dict[str, Any] = msgspec.to_builtins(fit)
    used |= {"seed": fit.seed, "backend": fit.backend}
    if "loss" not in used:
        loss = model.loss
        used["loss"] = loss if isinstance(loss, str) else str(getattr(loss, "name", loss))
    if "optimizer" not in used:
        used["optimizer"] = model.optimizer.name
    return used
