"""Each operation that gradients know gives what OpenVINO's CPU gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset1, opset8, opset13
from openvino import opset15 as ops

from openmaas.errors import ArtifactRefused
from openmaas.runtimes.gradients_graph import Graph
from openmaas.runtimes.gradients_program import Plans

FLAT, IMAGE, SERIES = [1, 6], [1, 4, 6, 6], [1, 5, 4]
chance = np.random.default_rng(5)


def floats(*shape: int) -> Any:
    return ops.constant(chance.normal(size=shape).astype(np.float32))


def ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def one(value: float) -> Any:
    return ops.constant(np.float32(value))


def axis(value: int) -> Any:
    return ops.constant(np.int64(value))


def recurrent(kind: Any, gates: int, direction: str, **more: Any) -> Callable[[Any], Any]:
    both = 2 if direction == "bidirectional" else 1
    biases = gates + 1 if more.get("linear_before_reset") else gates
    weights = floats(both, 3 * gates, 4), floats(both, 3 * gates, 3), floats(both, 3 * biases)
    states = [floats(1, both, 3) for _ in range(2 if gates == 4 else 1)]

    def make(x: Any) -> Any:
        made = kind(x, *states, ints(4), *weights, 3, direction, **more)
        return ops.concat([ops.reshape(port, ints(1, -1), False) for port in made.outputs()], 1)

    return make


def joined(ports: Any) -> Any:
    """All outputs, in the other order."""
    return ops.concat([ops.reshape(port, ints(1, -1), False) for port in reversed(ports)], 1)


KINDS: dict[str, tuple[list[int], Callable[[Any], Any]]] = {
    **{
        name: (FLAT, getattr(ops, name))
        for name in (
            "abs atan ceiling cos cosh erf exp floor negative relu sigmoid sign sin sinh "
            "softplus softsign tan tanh hswish hsigmoid mish"
        ).split()
    },
    "log": (FLAT, lambda x: ops.log(ops.exp(x))),
    "sqrt": (FLAT, lambda x: ops.sqrt(ops.abs(x))),
    "gelu": (FLAT, lambda x: ops.gelu(x, "erf")),
    "gelu of tanh": (FLAT, lambda x: ops.gelu(x, "tanh")),
    "clamp": (FLAT, lambda x: ops.clamp(x, -0.5, 0.7)),
    "elu": (FLAT, lambda x: ops.elu(x, 0.7)),
    "selu": (FLAT, lambda x: ops.selu(x, one(1.6), one(1.05))),
    "prelu": (IMAGE, lambda x: ops.prelu(x, floats(4))),
    "swish": (FLAT, lambda x: ops.swish(x, one(1.3))),
    "hard sigmoid": (FLAT, lambda x: ops.hard_sigmoid(x, one(0.2), one(0.5))),
    "round": (FLAT, lambda x: ops.round(x, "half_away_from_zero")),
    "softmax": (FLAT, lambda x: ops.softmax(x, -1)),
    "log softmax": (FLAT, lambda x: ops.log_softmax(x, 1)),
    "arithmetic": (FLAT, lambda x: ops.divide(ops.subtract(x, one(2)), ops.add(x, one(9)))),
    "power": (FLAT, lambda x: ops.add(ops.power(x, one(2)), ops.power(x, one(3)))),
    "largest": (FLAT, lambda x: ops.maximum(ops.minimum(x, one(0.5)), floats(1, 6))),
    "modulo": (FLAT, lambda x: ops.add(ops.mod(x, one(0.7)), ops.floor_mod(x, one(0.7)))),
    "difference": (FLAT, lambda x: ops.squared_difference(x, floats(6))),
    "select": (FLAT, lambda x: ops.select(ops.greater(x, one(0)), x, ops.exp(x))),
    "comparison": (FLAT, lambda x: ops.convert(ops.less_equal(x, floats(1, 6)), "f32")),
    "logic": (
        FLAT,
        lambda x: ops.convert(
            ops.logical_or(ops.less(x, one(0)), ops.logical_not(ops.equal(x, one(0)))), "f32"
        ),
    ),
    "matmul": (FLAT, lambda x: ops.matmul(x, floats(3, 6), False, True)),
    "einsum": (SERIES, lambda x: ops.einsum([x, floats(4, 2)], "abc,cd->abd")),
    "batch norm": (
        IMAGE,
        lambda x: ops.batch_norm_inference(
            x, floats(4), floats(4), floats(4), ops.abs(floats(4)), 1e-3
        ),
    ),
    "mvn": (SERIES, lambda x: ops.mvn(x, ints(2), True, 1e-5, "inside_sqrt")),
    "norm": (FLAT, lambda x: ops.normalize_l2(x, ints(1), 1e-6, "add")),
    "group norm": (IMAGE, lambda x: ops.group_normalization(x, floats(4), floats(4), 2, 1e-5)),
    "lrn": (IMAGE, lambda x: ops.lrn(x, ints(1), 0.1, 0.75, 1.0, 3)),
    "attention": (
        [1, 2, 5, 4],
        lambda x: ops.scaled_dot_product_attention(x, x, x, floats(1, 1, 5, 5)),
    ),
    "causal": (
        [1, 2, 5, 4],
        lambda x: ops.scaled_dot_product_attention(x, x, x, causal=True),
    ),
    "convolution": (
        IMAGE,
        lambda x: ops.convolution(x, floats(3, 4, 3, 3), [2, 1], [1, 0], [0, 1], [1, 2]),
    ),
    "same convolution": (
        IMAGE,
        lambda x: ops.convolution(
            x, floats(3, 4, 2, 2), [2, 2], [0, 0], [0, 0], [1, 1], "same_lower"
        ),
    ),
    "group convolution": (
        IMAGE,
        lambda x: ops.group_convolution(x, floats(2, 3, 2, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]),
    ),
    "transposed convolution": (
        IMAGE,
        lambda x: ops.convolution_backprop_data(
            x, floats(4, 3, 3, 3), [2, 2], pads_begin=[1, 0], pads_end=[0, 1], dilations=[1, 1]
        ),
    ),
    "max pool": (
        IMAGE,
        lambda x: opset8.max_pool(x, [2, 2], [1, 1], [1, 1], [0, 0], [2, 3], "ceil").output(0),
    ),
    "average pool": (
        IMAGE,
        lambda x: opset1.avg_pool(x, [2, 2], [1, 1], [1, 1], [2, 3], True, "ceil"),
    ),
    "average of padding too": (
        IMAGE,
        lambda x: opset1.avg_pool(x, [2, 2], [1, 1], [0, 1], [3, 3], False, "floor"),
    ),
    "adaptive pool": (IMAGE, lambda x: ops.adaptive_avg_pool(x, ints(2, 4))),
    **{
        f"reduce {name}": (
            SERIES,
            lambda x, name=name: getattr(ops, f"reduce_{name}")(x, ints(1), True),
        )
        for name in ("sum", "mean", "max", "min", "prod", "l1", "l2")
    },
    "reshape": (SERIES, lambda x: ops.reshape(x, ints(0, -1, 2), True)),
    "transpose": (SERIES, lambda x: ops.transpose(x, ints(0, 2, 1))),
    "squeeze": (SERIES, lambda x: ops.squeeze(ops.unsqueeze(x, ints(1, 3)), ints(3))),
    "split": (SERIES, lambda x: joined(ops.split(x, axis(2), 2).outputs())),
    "uneven split": (
        SERIES,
        lambda x: joined(ops.variadic_split(x, axis(1), ints(1, -1, 2)).outputs()),
    ),
    "slice": (SERIES, lambda x: ops.slice(x, ints(-1, 1), ints(-9, 99), ints(-2, 2), ints(1, 2))),
    "strided slice": (
        SERIES,
        lambda x: ops.strided_slice(
            x, ints(0, 3, 0), ints(0, 0, 9), ints(1, -1, 2), [1, 0, 0], [1, 0, 0]
        ),
    ),
    "gather": (SERIES, lambda x: ops.gather(x, ops.constant(np.int64([[3, -1]])), axis(1))),
    "gather elements": (
        FLAT,
        lambda x: ops.gather_elements(x, ops.constant(np.int64([[4, 0, 0]])), 1),
    ),
    "gather nd": (SERIES, lambda x: ops.gather_nd(x, ops.constant(np.int64([[0, 2], [0, 1]])))),
    "scatter": (FLAT, lambda x: ops.scatter_update(x, ints(1, 3), floats(1, 2), axis(1))),
    "scatter nd": (
        FLAT,
        lambda x: ops.scatter_nd_update(x, ops.constant(np.int64([[0, 2]])), floats(1)),
    ),
    "pad": (SERIES, lambda x: ops.pad(x, ints(0, 1, 0), ints(0, 0, 2), "constant", one(3))),
    "reflect": (SERIES, lambda x: ops.pad(x, ints(0, 2, 1), ints(0, 1, 0), "reflect")),
    "broadcast": (FLAT, lambda x: ops.broadcast(x, ints(1, 3, 6))),
    "both ways": (FLAT, lambda x: ops.broadcast(x, ints(3, 1), broadcast_spec="bidirectional")),
    "tile": (FLAT, lambda x: ops.tile(x, ints(1, 2))),
    "sum so far": (SERIES, lambda x: ops.cumsum(x, axis(1), True, True)),
    "reversed": (SERIES, lambda x: ops.reverse_sequence(x, ints(3), 0, 1)),
    "deeper": (IMAGE, lambda x: ops.space_to_depth(x, "depth_first", 2)),
    "deeper in blocks": (IMAGE, lambda x: ops.space_to_depth(x, "blocks_first", 3)),
    "wider": (IMAGE, lambda x: ops.depth_to_space(x, "blocks_first", 2)),
    "wider in depth": (IMAGE, lambda x: ops.depth_to_space(x, "depth_first", 2)),
    "largest ones": (FLAT, lambda x: ops.topk(x, axis(3), 1, "max", "value").output(0)),
    "sizes": (
        SERIES,
        lambda x: ops.reshape(x, ops.gather(ops.shape_of(x), ints(0, 2, 1), axis(0)), False),
    ),
    "one hot": (
        FLAT,
        lambda x: ops.multiply(ops.one_hot(ints(2), axis(6), one(1), one(0), -1), x),
    ),
    **{
        f"lstm {way}": (SERIES, recurrent(opset13.lstm_sequence, 4, way))
        for way in ("forward", "reverse", "bidirectional")
    },
    "gru": (SERIES, recurrent(opset13.gru_sequence, 3, "bidirectional")),
    "gru of its own bias": (
        SERIES,
        recurrent(opset13.gru_sequence, 3, "reverse", linear_before_reset=True),
    ),
}


def compared(model: ov.Model, given: NDArray[np.float32]) -> tuple[Any, Any]:
    """What OpenVINO answers, and the operations in JAX."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = compiled([given])[0]
    reading = Plans(Graph(model)).read({"x": given})
    return wanted, reading.program("y").forward(reading.leaves, reading.data)


@pytest.mark.parametrize("name", KINDS)
def test_an_operation_gives_what_openvino_gives(name: str) -> None:
    shape, make = KINDS[name]
    x = ops.parameter(shape, np.float32, name="x")
    x.output(0).set_names({"x"})
    made = make(x)
    y = ops.multiply(made, one(1))
    y.output(0).set_names({"y"})
    given = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    wanted, found = compared(ov.Model([y], [x], "one"), given)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("FakeQuantize", lambda x: ops.fake_quantize(x, *map(one, (-1, 1, -1, 1)), 16)),
        ("NonZero", lambda x: ops.convert(ops.non_zero(x), "f32")),
    ],
)
def test_what_has_no_gradient_is_named(name: str, make: Callable[[Any], Any]) -> None:
    x = ops.parameter(FLAT, np.float32, name="x")
    model = ov.Model([make(x)], [x], "one")
    with pytest.raises(ArtifactRefused, match=f"operation {name}.*occlusion"):
        Graph(model)
