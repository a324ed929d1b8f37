"""Per-example gradients, clipped and summed, for about the price of ordinary ones.

Each row goes through the network alone (``jax.vmap``), so that its gradient is a function of
nothing but itself and the weights. Where a layer is linear in its weights its gradient is the
product of what it was given and the gradient of what it gave; both are kept, and norms and clipped
sums are made of them without a second pass (Goodfellow 2015, https://arxiv.org/abs/1510.01799;
Rochette et al. 2019, https://arxiv.org/abs/1912.06015; Bu et al. 2023,
https://arxiv.org/abs/2210.00038). Of all other weights the gradient of each row is computed as it
stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from openmaas.training.differential_privacy import sites
from openmaas.training.differential_privacy.sites import Site, Tape

Leaves = list[Any]
# weights, other variables, one row of data (each array with its first dimension 1) → its loss
LossOf = Callable[[Leaves, Leaves, Any], Any]


class Summed(NamedTuple):
    gradients: Leaves  # Σ of the rows' clipped gradients, one array for each weight
    norms: Any  # [rows], before they were clipped


class Clipping:
    """Sums clipped gradients of microbatches of one size.

    Args:
        variables: the trainable ones, in the order of the weights that are given to ``loss_of``.
        example: a row's data, other variables and weights, for their shapes.
        norm: to which the gradient of each row is clipped, over all weights together.
    """

    def __init__(
        self,
        model: Any,
        variables: Sequence[Any],
        loss_of: LossOf,
        example: tuple[Leaves, Leaves, Any],
        norm: float,
    ) -> None:
        self._loss_of = loss_of
        self._norm = norm
        self._sites, self._shapes = _found(model, loss_of, example)
        places = {id(variable): at for at, variable in enumerate(variables)}
        self._places = {
            name: [places[id(one)] for one in site.variables] for name, site in self._sites.items()
        }
        known = {at for found in self._places.values() for at in found}
        self._rest = [at for at in range(len(variables)) if at not in known]

    def sum(self, weights: Leaves, fixed: Leaves, rows: Any, mask: Any) -> Summed:
        """
        Args:
            fixed: other variables; each has a first dimension of rows: seeds differ.
            rows: their data.
            mask: [rows], 0 of what only fills the microbatch up.
        """

        def loss(rest: Leaves, taps: dict[str, Any], fixed: Leaves, row: Any) -> Any:
            given = list(weights)
            for at, one in zip(self._rest, rest, strict=True):
                given[at] = one
            tape = Tape(taps)
            with sites.tapped(self._sites, tape):
                found = self._loss_of(given, fixed, jax.tree.map(lambda one: one[None], row))
            return found, tape.kept

        rest = [weights[at] for at in self._rest]
        taps = {
            name: tuple(jnp.zeros(one.shape, one.dtype) for one in shapes)
            for name, shapes in self._shapes.items()
        }
        differentiate = jax.grad(loss, argnums=(0, 1), has_aux=True)
        each = jax.vmap(differentiate, in_axes=(None, None, 0, 0))
        (whole, deltas), kept = each(rest, taps, fixed, rows)
        parts: dict[int, Any] = {
            at: sites.Whole(one) for at, one in zip(self._rest, whole, strict=True)
        }
        for name, site in self._sites.items():
            made = jax.vmap(site.parts)(kept[name], deltas[name])
            parts |= dict(zip(self._places[name], made, strict=True))
        return self._clipped(weights, parts, mask)

    def _clipped(self, weights: Leaves, parts: dict[int, Any], mask: Any) -> Summed:
        squares = sum(one.squares() for one in parts.values())
        norms = jnp.sqrt(squares)
        # A gradient that is no number is none: it must not spoil the others, nor tell of itself.
        fine = jnp.isfinite(squares)
        factors = jnp.minimum(1.0, self._norm / jnp.maximum(norms, 1e-30))
        factors = jnp.where(fine & (mask > 0), factors, 0.0)
        summed = [
            parts[at].cleaned(fine).sum(factors, weights[at].shape).astype(weights[at].dtype)
            for at in range(len(weights))
        ]
        return Summed(summed, norms)


def _found(
    model: Any, loss_of: LossOf, example: tuple[Leaves, Leaves, Any]
) -> tuple[dict[str, Site], dict[str, Any]]:
    """The layers whose gradients are made of what goes in and out, and the shapes of what goes
    out. One that is called twice has its gradient computed as it stands."""
    wanted = sites.of(model)
    tape = Tape(None)
    with sites.tapped(wanted, tape):
        # A function of its own: JAX remembers what it has traced, without taps.
        jax.eval_shape(lambda *given: loss_of(*given), *example)
    found = {name: site for name, site in wanted.items() if tape.calls.get(name) == 1}
    return found, {name: tape.shapes[name] for name in found}
