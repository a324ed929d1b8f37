"""Float64 where the libraries would compute in float32: in a process of its own, once."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import keras
from keras.src.backend.common import dtypes


def compute_in(dtype: str) -> None:
    """Makes this process compute in float32 or float64, before it builds a network.

    Keras takes float64 for float32 in most of its functions, as JAX does by default, and JAX's
    attention weighs in float32. Gradients could not be told from the rounding of what they are
    gradients of.
    """
    keras.config.set_floatx(dtype)
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
        dtypes.BIT64_TO_BIT32_DTYPE.pop("float64", None)
        jax.nn.dot_product_attention = _attention


def _attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    **_: Any,
) -> Any:
    """Scaled dot-product attention of ``[batch, time, heads, size]``, as ``jax.nn`` has it.

    Source: Vaswani et al. 2017, section 3.2.1.
    """
    heads = query.shape[2] // key.shape[2]  # of queries that share a key
    key, value = (jnp.repeat(one, heads, axis=2) for one in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = jnp.einsum("btnh,bsnh->bnts", query, key) * scale
    if bias is not None:
        logits = logits + bias
    if is_causal:
        causal = jnp.tril(jnp.ones(logits.shape[-2:], bool))
        mask = causal if mask is None else mask & causal
    if mask is not None:
        logits = jnp.where(mask, logits, -1e300)
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(logits), value)
