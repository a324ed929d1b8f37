"""Where the chance of private steps comes from: which rows a step takes, and its noise.

Both are a function of a key and the step's number, so that a step that is made again after a crash
is the very same one, and costs nothing more.

``pseudorandom`` is JAX's Threefry (Salmon et al. 2011) keyed by the job's seed: who knows the seed
can take the noise away. ``cryptographic`` is AES-256 in counter mode under a key of the system's
random source, turned into normal numbers by Box and Muller (1958); four of them are added and
halved, so that each number can come of many, and the gaps between floating-point numbers tell
little of which it was (Mironov 2012, https://doi.org/10.1145/2382196.2382264; Holohan and Braghin
2021, https://arxiv.org/abs/2107.10138).
"""

from __future__ import annotations

import functools
import math
import operator
import os
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from openmaas.disk import disk_errors
from openmaas.training.spec import Privacy

KEY = "noise.key"  # in the folder of a job or session, while it lasts
KEY_BYTES = 32
ADDED = 4  # normal numbers that make one
_ROWS, _NORMAL = 0, 1  # what a stream is for


class Source(Protocol):
    """A source of chance. Steps count from 0."""

    def sample(self, step: int, rows: int, rate: float) -> NDArray[np.int64]:
        """Numbers of the rows that a step takes, each with the probability ``rate``, rounded down
        to what 32 bits tell."""

    def words(self, step: int, count: int) -> NDArray[np.uint32] | None:
        """What ``of_words`` makes so many normal numbers of; None: the step draws them itself,
        from ``key``."""

    @property
    def key(self) -> jax.Array | None: ...


class Pseudorandom:
    def __init__(self, seed: int) -> None:
        both = jax.random.split(jax.random.key(seed))
        self._sampling, self._noise = both[_ROWS], both[_NORMAL]
        self._bits = jax.jit(
            lambda key, step, rows: jax.random.bits(jax.random.fold_in(key, step), (rows,)),
            static_argnums=2,
        )

    @property
    def key(self) -> jax.Array | None:
        return self._noise

    def sample(self, step: int, rows: int, rate: float) -> NDArray[np.int64]:
        return _taken(np.asarray(self._bits(self._sampling, step, rows)), rate)

    def words(self, step: int, count: int) -> NDArray[np.uint32] | None:
        return None


class Cryptographic:
    """
    Args:
        key: of 32 bytes from the system's random source.
    """

    key = None

    def __init__(self, key: bytes) -> None:
        self._secret = algorithms.AES256(key)

    def sample(self, step: int, rows: int, rate: float) -> NDArray[np.int64]:
        return _taken(np.frombuffer(self._stream(_ROWS, step, 4 * rows), "<u4"), rate)

    def words(self, step: int, count: int) -> NDArray[np.uint32] | None:
        return np.frombuffer(self._stream(_NORMAL, step, 4 * words_of(count)), "<u4")

    def _stream(self, use: int, step: int, size: int) -> bytes:
        """Bytes that no other use or step has: the counter's upper half names them."""
        start = bytes([use]) + step.to_bytes(7, "big") + bytes(8)
        encryptor = Cipher(self._secret, modes.CTR(start)).encryptor()
        return encryptor.update(bytes(size))


def source(privacy: Privacy, seed: int, folder: Path) -> Source:
    """Of a job or session, the same whenever it is taken up again.

    Raises:
        StorageFull
    """
    if privacy.noise == "pseudorandom":
        return Pseudorandom(seed)
    path = folder / KEY
    if not path.exists():
        scratch = path.with_suffix(".new")
        with disk_errors(), open(scratch, "wb", opener=_private) as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    return Cryptographic(path.read_bytes())


def of_key(key: jax.Array, step: jax.Array, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    """A step's normal numbers from a key, within a compiled program."""
    keys = jax.random.split(jax.random.fold_in(key, step), len(shapes))
    return [jax.random.normal(one, shape) for one, shape in zip(keys, shapes, strict=True)]


def words_of(count: int) -> int:
    """How many words so many normal numbers are made of: two of two, and of these so many each."""
    return 2 * ADDED * -(-count // 2)


def of_words(words: jax.Array, shapes: list[tuple[int, ...]]) -> list[jax.Array]:
    """The same from words that were drawn before, as ``Source.words`` gives them."""
    sizes = [math.prod(shape) for shape in shapes]
    # One by one, so that all becomes one loop over the weights when it is compiled.
    pairs = [_pair(unit, turn) for unit, turn in words.reshape(ADDED, 2, -1)]
    both = [functools.reduce(operator.add, ones) for ones in zip(*pairs, strict=True)]
    found = jnp.concatenate(both) / math.sqrt(ADDED)
    parts = jnp.split(found[: sum(sizes)], np.cumsum(sizes)[:-1].tolist())
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _pair(unit: jax.Array, turn: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Normal numbers, two of two words.

    A turn's upper bits say in which quarter it is, the others how far. Sine and cosine within a
    quarter are Taylor's, with an error below 1e-7: ten times as fast as those that XLA calls.
    """
    # In (0, 1], of 32 bits: what is small, which the far ends come of, is told apart the best.
    size = jnp.sqrt(-2 * jnp.log((unit.astype(jnp.float32) + 1) * 2.0**-32))
    angle = (turn & 0x3FFFFFFF).astype(jnp.float32) * (math.pi / 2 * 2.0**-30)
    square = angle * angle
    sine = angle * _series(square, range(1, 14, 2))
    cosine = _series(square, range(0, 15, 2))
    left, below = turn >> 30 & 1, turn >> 31
    return size * jnp.where(left, -cosine, cosine), size * jnp.where(below, -sine, sine)


def _series(square: jax.Array, powers: range) -> jax.Array:
    """The alternating series of sine or cosine, by Horner's rule."""
    found = jnp.zeros_like(square)
    for at, power in reversed(list(enumerate(powers))):
        found = found * square + (-1) ** at / math.factorial(power)
    return found


def _taken(bits: NDArray[np.uint32], rate: float) -> NDArray[np.int64]:
    return np.flatnonzero(bits.astype(np.uint64) < np.uint64(int(rate * 2.0**32)))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
