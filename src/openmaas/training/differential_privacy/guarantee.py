"""What a private version promises, for its card, and the file that says how far it is spent."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from openmaas.disk import disk_errors, sync_folder

LEDGER = "privacy.json"  # in a job's folder

UNIT = "one row of the training split: it is there, or it is not"
UNIT_NOTE = (
    "Rows of one person count separately: k of them are protected by k·ε at most, and a larger δ."
)
HELD_OUT = (
    "validation and test rows: their metrics, and what is decided by them (when to stop, which "
    "epoch to keep, the learning rate), tell of them"
)
_VOCABULARY = (
    "the vocabulary: every word that stands twice in the training texts, be it in one of them, "
    "and how long the longest text is"
)
_PIECES = "the pieces of words of both tokenizers, which are made from the training rows"
# What a recipe makes of the rows before it trains.
LOOKED_AT = {
    "text_embeddings": [_VOCABULARY],
    "text_lstm": [_VOCABULARY],
    "text_gru": [_VOCABULARY],
    "text_transformer": [_VOCABULARY],
    "seq2seq_rnn": [_PIECES],
    "seq2seq_transformer": [_PIECES],
    "tabular_mlp": [
        "the mean, the variance and the farthest value of number columns, and of a number that is "
        "learnt; the values that category columns hold"
    ],
    "image_cnn": ["the least and the largest number of the images"],
}
ALWAYS = (
    HELD_OUT,
    "how many rows there are, the names of columns and labels, and the data set's fingerprint",
    "settings that were chosen by looking at the same rows",
    "how long steps take",
)
SEEDED = "the noise, from who knows the seed or can guess it: it is pseudorandom"


class Spent(Struct, frozen=True, kw_only=True):
    """What a run is, and how far it is; written before steps are made."""

    rate: float
    noise_multiplier: float
    delta: float
    steps: int  # that were begun


class Guarantee(Struct, frozen=True, kw_only=True):
    """(ε, δ)-differential privacy of the rows that a version was trained on."""

    epsilon: float  # of the steps that were taken
    delta: float
    unit: str = UNIT
    unit_note: str = UNIT_NOTE
    sampling: str = "Poisson"  # each step takes each row by chance, independently
    sampling_rate: float
    batch_size: int  # rows of a step, on average
    noise_multiplier: float  # the noise's standard deviation ÷ max_grad_norm
    max_grad_norm: float  # of each row's gradient, over all weights together
    steps: int
    planned_steps: int
    noise: str  # cryptographic or pseudorandom
    accountant: str
    event: dict[str, Any]  # what was composed, as dp-accounting has it
    not_covered: list[str]


def not_covered(noise: str, recipe: str | None) -> list[str]:
    """What is known of the rows all the same."""
    seeded = [SEEDED] if noise == "pseudorandom" else []
    return [*LOOKED_AT.get(recipe or "", []), *ALWAYS, *seeded]


def accountant() -> str:
    """By whom it is counted."""
    return f"PLD (dp-accounting {version('dp-accounting')})"


def event(rate: float, noise_multiplier: float, steps: int) -> dict[str, Any]:
    """So many steps in the words of dp-accounting's events."""
    gaussian = {"gaussian": {"noise_multiplier": noise_multiplier}}
    sampled = {"poisson_sampled": {"sampling_probability": rate, "event": gaussian}}
    return {"self_composed": {"count": steps, "event": sampled}}


def write(folder: Path, spent: Spent) -> None:
    """Durable when it returns.

    Raises:
        StorageFull
    """
    path = folder / LEDGER
    scratch = path.with_suffix(".new")
    with disk_errors():
        with open(scratch, "wb") as file:
            file.write(msgspec.json.encode(spent))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_folder(folder)


def read(folder: Path) -> Spent | None:
    """None: no step was begun.

    Raises:
        msgspec.DecodeError: the file is damaged.
    """
    try:
        return msgspec.json.decode((folder / LEDGER).read_bytes(), type=Spent)
    except FileNotFoundError:
        return None
