"""Each operator that training passes through computes what onnxruntime computes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.compression.families.onnx.graphs import graph_of, run_both
from workers.compression.families.onnx.training.operators.table import supported_operators

RNG = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.2, 0.9, size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """A node: ``read`` are arrays that are fed, ``ints`` or lists of them that are stored, None for what is omitted."""

    operator: str
    read: tuple[Any, ...]
    opset: int = 21
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    stored: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        shapes = "-".join("x".join(map(str, np.shape(values))) for values in self.read if values is not None)
        return f"{self.operator}[{self.opset}]({words}){shapes}"


def case(operator: str, *read: Any, opset: int = 21, outputs: int = 1, stored: Any = None, **attributes: Any) -> Case:
    """Integers after the first input describe shapes: they are stored unless ``stored`` says otherwise."""
    if stored is None:
        stored = tuple(
            slot for slot, values in enumerate(read) if slot and values is not None and values.dtype == np.int64
        )
    read = tuple(values if values is None else np.asarray(values) for values in read)
    return Case(operator, read, opset, outputs, attributes, tuple(stored))


def check(found: Case) -> None:
    names = [f"in{slot}" if values is not None else "" for slot, values in enumerate(found.read)]
    made = [f"out{slot}" for slot in range(found.outputs)]
    domain, _, operator = found.operator.rpartition(".")
    nodes = [
        helper.make_node(operator, names, made, domain=domain, **found.attributes),
        helper.make_node("Add", ["spare_input", "spare_weight"], ["spare"]),
    ]
    given = {name: values for name, values in zip(names, found.read, strict=True) if name}
    stored = {names[slot]: found.read[slot] for slot in found.stored}
    feeds = {name: values for name, values in given.items() if name not in stored} | {"spare_input": floats(2)}
    model = graph_of(nodes, feeds, [*made, "spare"], {**stored, "spare_weight": floats(2)}, found.opset)

    wanted, got = run_both(model, feeds)

    for reference, values in zip(wanted, got, strict=True):
        assert values.shape == reference.shape
        if reference.dtype.kind == "f":
            np.testing.assert_allclose(values, reference, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(values, reference)


UNARY = [
    "Abs",
    "Atan",
    "Asinh",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]
OF_POSITIVE = ["Acos", "Asin", "Atanh", "Log", "Reciprocal", "Sqrt"]
BINARY = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Mean",
    "Sum",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
]
REDUCTIONS = [
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
]

ELEMENTWISE = [
    *(case(name, floats(2, 3, 4)) for name in UNARY),
    *(case(name, positive(2, 3)) for name in OF_POSITIVE),
    case("Acosh", positive(2, 3) + 1),
    *(case(name, floats(2, 3, 4), floats(3, 1)) for name in BINARY),
    *(case(name, floats(2, 3) > 0, floats(3) > 0) for name in ("And", "Or", "Xor")),
    case("Not", floats(3) > 0),
    case("Div", ints(7, -7, 9), ints(2, 2, -4), stored=()),
    case("Mod", ints(7, -7, 9), ints(2, 3, -4), stored=()),
    case("Mod", floats(4), positive(4), fmod=1),
    case("Pow", positive(2, 3), np.float32(2.0)),
    case("Pow", positive(2, 3), floats(3)),
    case("Max", floats(2, 3), floats(3), floats(1, 3)),
    case("PRelu", floats(2, 3, 4, 4), floats(3, 1, 1)),
    case("Where", floats(2, 3) > 0, floats(2, 3), floats(1)),
    case("Elu", floats(5), alpha=0.3),
    case("Selu", floats(5), alpha=1.2, gamma=1.1),
    case("LeakyRelu", floats(5), alpha=0.3),
    case("HardSigmoid", floats(5), alpha=0.3, beta=0.4),
    case("Gelu", floats(5), approximate="tanh"),
    case("Clip", floats(9), np.float32(-0.5), np.float32(0.5)),
    case("Clip", floats(9), None, np.float32(0.5)),
    case("Clip", floats(9), opset=9, min=-0.5, max=0.5),
    case("Cast", floats(5) * 9, to=TensorProto.INT64),
    case("Cast", ints(0, 3), to=TensorProto.BOOL),
    case("CastLike", ints(0, 3), floats(1)),
    case("Dropout", floats(5)),
    case("Dropout", floats(5), opset=10, ratio=0.9),
    case("com.microsoft.BiasGelu", floats(2, 4), floats(4)),
    case("com.microsoft.FastGelu", floats(2, 4), floats(4)),
    case("com.microsoft.FastGelu", floats(2, 4)),
    case("com.microsoft.Gelu", floats(2, 4)),
    case("com.microsoft.QuickGelu", floats(2, 4), alpha=1.5),
]
SHAPES = [
    case("Concat", floats(2, 3), floats(2, 1), axis=-1),
    case("ConstantOfShape", ints(2, 3), value=helper.make_tensor("v", TensorProto.INT64, [1], [4])),
    case("ConstantOfShape", ints(2, 3)),
    case("DepthToSpace", floats(2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", floats(2, 8, 3, 2), blocksize=2, mode="CRD"),
    case("SpaceToDepth", floats(2, 3, 4, 6), blocksize=2),
    case("Expand", floats(3, 1), ints(2, 1, 4)),
    case("EyeLike", floats(3, 4), k=1),
    case("Flatten", floats(2, 3, 4), axis=2),
    case("Flatten", floats(2, 3, 4), axis=-1),
    case("Pad", floats(2, 3), ints(0, 1, 2, -1), np.float32(0.5)),
    case("Pad", floats(2, 3, 4), ints(2, 1), None, ints(-1)),
    case("Pad", floats(2, 3, 4), ints(0, 1, 2, 0, 2, 3), mode="reflect"),
    case("Pad", floats(2, 3, 4), ints(1, 1, 2, 0, 2, 3), mode="edge"),
    case("Pad", floats(2, 3), opset=10, pads=[0, 1, 1, 0], value=2.0),
    case("Range", np.int64(2), np.int64(11), np.int64(3), stored=()),
    case("Range", np.float32(1.0), np.float32(0.0), np.float32(-0.25), stored=()),
    case("Reshape", floats(2, 3, 4), ints(0, -1)),
    case("Shape", floats(2, 3, 4)),
    case("Shape", floats(2, 3, 4), start=-2, end=2),
    case("Size", floats(2, 3, 4)),
    case("Slice", floats(5, 6), ints(1, -3), ints(4, 100)),
    case("Slice", floats(5, 6), ints(-1), ints(-(2**62)), ints(1), ints(-2)),
    case("Slice", floats(5, 6), opset=9, starts=[1], ends=[-1], axes=[1]),
    case("Split", floats(7, 2), outputs=3, num_outputs=3),
    case("Split", floats(2, 7), ints(3, 4), outputs=2, axis=1),
    case("Split", floats(2, 6), opset=12, outputs=2, axis=1, split=[2, 4]),
    case("Squeeze", floats(1, 3, 1), ints(-1)),
    case("Squeeze", floats(1, 3, 1)),
    case("Squeeze", floats(1, 3, 1), opset=11, axes=[0]),
    case("Tile", floats(2, 3), ints(2, 2)),
    case("Transpose", floats(2, 3, 4)),
    case("Transpose", floats(2, 3, 4), perm=[1, 0, 2]),
    case("Trilu", floats(3, 4), np.int64(1), stored=()),
    case("Trilu", floats(2, 3, 4), upper=0),
    case("Unsqueeze", floats(2, 3), ints(-1, 0)),
    case("Unsqueeze", floats(2, 3), opset=11, axes=[1, 2]),
]
INDEXING = [
    case("Gather", floats(5, 3), ints(0, -1, 2), stored=()),
    case("Gather", floats(5, 3), np.int64(-1), axis=1),
    case("Gather", floats(2, 5, 3), np.array([[0, 1], [4, -2]], np.int32), axis=1),
    case("GatherElements", floats(3, 3), np.array([[0, -1, 2], [1, 0, 0]], np.int64), axis=0),
    case("GatherND", floats(2, 3, 4), np.array([[0, 1], [1, -1]], np.int64)),
    case("GatherND", floats(2, 3, 4), np.array([[1], [2]], np.int64), batch_dims=1),
    case("NonZero", np.array([[1, 0], [2, 3]], np.float32)),
    case("OneHot", ints(0, 2, -1), ints(3), floats(2), stored=(1,)),
    case("OneHot", np.array([[0, 1]], np.int64), ints(3), floats(2), stored=(1,), axis=1),
    case("ScatterElements", floats(3, 3), np.array([[0, -1, 2]], np.int64), floats(1, 3)),
    case("ScatterElements", floats(3, 3), np.array([[0, 1, 2]], np.int64), floats(1, 3), axis=1, reduction="add"),
    case("ScatterND", floats(4, 3), np.array([[1], [-1]], np.int64), floats(2, 3)),
    case("ScatterND", floats(4, 3), np.array([[1], [1]], np.int64), floats(2, 3), reduction="add"),
    case("TopK", floats(3, 6), ints(2), outputs=2),
    case("TopK", floats(3, 6), opset=9, outputs=2, k=2, axis=0),
    case("TopK", floats(3, 6), ints(2), outputs=2, largest=0),
]
REDUCED = [
    *(case(name, floats(2, 3, 4), ints(-1)) for name in REDUCTIONS),
    *(case(name, floats(2, 3, 4), opset=11, axes=[0, 2], keepdims=0) for name in REDUCTIONS),
    case("ReduceLogSum", positive(2, 3)),
    case("ReduceSum", floats(2, 3), noop_with_empty_axes=1),
    case("ReduceMax", ints(3, 9, 4)),
    case("ArgMax", floats(3, 4), axis=1),
    case("ArgMax", np.ones((2, 3), np.float32), axis=1, keepdims=0, select_last_index=1),
    case("ArgMin", floats(3, 4)),
    case("CumSum", floats(3, 4), np.int64(-1)),
    case("CumSum", floats(3, 4), np.int64(0), reverse=1, exclusive=1),
]
PRODUCTS = [
    case("MatMul", floats(2, 3, 4), floats(4, 5)),
    case("Gemm", floats(2, 3), floats(3, 4), floats(4)),
    case("Gemm", floats(3, 2), floats(4, 3), floats(2, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", floats(2, 3), floats(3, 4)),
    case("Einsum", floats(2, 3, 4), floats(2, 4), equation="bij,bj->bi"),
    case("com.microsoft.FusedMatMul", floats(2, 4, 3), floats(2, 5, 4), transA=1, transB=1, alpha=0.3),
    case("com.microsoft.TransposeMatMul", floats(2, 3, 4), floats(2, 5, 4), transB=1),
    case("com.microsoft.FusedGemm", floats(2, 3), floats(3, 4), floats(4), activation="Relu"),
]
CONVOLUTIONS = [
    case("Conv", floats(2, 3, 9), floats(4, 3, 3), floats(4), pads=[2, 0], strides=[2]),
    case("Conv", floats(2, 4, 8, 7), floats(6, 2, 3, 2), group=2, dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("Conv", floats(1, 2, 8, 7), floats(3, 2, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", floats(1, 2, 8, 7), floats(3, 2, 3, 2), auto_pad="SAME_LOWER"),
    case("Conv", floats(1, 2, 5, 5), floats(3, 2, 3, 3), auto_pad="VALID"),
    case("Conv", floats(1, 2, 4, 4, 4), floats(3, 2, 2, 2, 2), floats(3)),
    case("ConvTranspose", floats(2, 3, 5), floats(3, 4, 3), floats(4), strides=[2], pads=[1, 0], output_padding=[1]),
    case("ConvTranspose", floats(1, 4, 5, 4), floats(4, 2, 3, 3), group=2, dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("ConvTranspose", floats(1, 2, 5, 4), floats(2, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", floats(1, 2, 5), floats(2, 3, 3), strides=[2], output_shape=[10]),
    case("com.microsoft.FusedConv", floats(1, 2, 5, 5), floats(3, 2, 3, 3), floats(3), activation="Relu"),
]
POOLING = [
    case("MaxPool", floats(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 0]),
    case("MaxPool", floats(2, 3, 9, 8), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", floats(2, 3, 9, 8), kernel_shape=[3, 2], dilations=[2, 2]),
    case("MaxPool", floats(2, 3, 9, 8), kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
    case("AveragePool", floats(2, 3, 9, 8), kernel_shape=[3, 2], strides=[2, 1]),
    case("AveragePool", floats(2, 3, 9, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", floats(2, 3, 9, 8), kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1),
    case("AveragePool", floats(2, 3, 9, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("GlobalAveragePool", floats(2, 3, 4, 5)),
    case("GlobalMaxPool", floats(2, 3, 4, 5)),
]
PIXELS = floats(1, 2, 4, 6)
SIZES = ints(1, 2, 7, 3)


def resize(**attributes: Any) -> list[Case]:
    """By scales and by sizes."""
    scales = np.array([1, 1, 2, 1.5], np.float32)
    return [
        case("Resize", PIXELS, None, scales, stored=(2,), **attributes),
        case("Resize", PIXELS, None, None, SIZES, **attributes),
    ]


RESIZING = [
    *resize(),
    *resize(mode="linear"),
    *resize(mode="linear", coordinate_transformation_mode="align_corners"),
    *resize(mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    *resize(mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    *resize(nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
    *resize(nearest_mode="ceil"),
    *resize(nearest_mode="round_prefer_ceil"),
    case("Resize", PIXELS, None, np.float32([2, 3]), stored=(2,), axes=[3, 2], mode="linear"),
    case("Resize", PIXELS, np.float32([1, 1, 2, 1.5]), opset=10, stored=(1,)),
    case("Upsample", PIXELS, np.float32([1, 1, 2, 2]), opset=9, stored=(1,), mode="linear"),
    case("Upsample", PIXELS, opset=8, scales=[1.0, 1.0, 2.0, 3.0]),
]
NORMS = [
    case("BatchNormalization", floats(2, 3, 4), floats(3), floats(3), floats(3), positive(3), epsilon=1e-3),
    case("BatchNormalization", floats(5, 3), floats(3), floats(3), floats(3), positive(3), opset=9),
    case("InstanceNormalization", floats(2, 3, 4, 4), floats(3), floats(3)),
    case("GroupNormalization", floats(2, 6, 4), floats(6), floats(6), num_groups=3),
    case("LayerNormalization", floats(2, 3, 4), floats(4), floats(4), opset=17),
    case("LayerNormalization", floats(2, 3, 4), floats(3, 4), axis=-2, outputs=3),
    case("RMSNormalization", floats(2, 3, 4), floats(4), opset=23),
    case("SimplifiedLayerNormalization", floats(2, 3, 4), floats(4), axis=-1),
    case("LRN", floats(2, 5, 3, 3), size=3, alpha=0.1),
    case("LpNormalization", floats(2, 3), axis=1),
    case("LpNormalization", floats(2, 3), axis=0, p=1),
    case("MeanVarianceNormalization", floats(2, 3, 4, 4)),
    case("Softmax", floats(2, 3, 4), axis=1),
    case("Softmax", floats(2, 3, 4), opset=11),
    case("LogSoftmax", floats(2, 3, 4)),
    case("LogSoftmax", floats(2, 3, 4), opset=11, axis=2),
    case("com.microsoft.SkipLayerNormalization", floats(2, 3, 4), floats(2, 3, 4), floats(4), floats(4), floats(4)),
    case("com.microsoft.SkipSimplifiedLayerNormalization", floats(2, 3, 4), floats(2, 3, 4), floats(4)),
]
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
SPLIT, PACKED = [floats(2, 5, 16)] * 3, (floats(2, 5, 16), floats(16, 48), floats(48))
HEADS = [floats(2, 4, 5, 8)] * 3
PAIRS = np.repeat(MASK[:, None, None, :], 5, axis=2) > 0
MULTI_HEAD, PACKED_ATTENTION = "com.microsoft.MultiHeadAttention", "com.microsoft.Attention"
ATTENTION = [
    case("Attention", *HEADS, opset=23),
    case("Attention", *HEADS, PAIRS, opset=23, scale=0.5),
    case(
        "Attention",
        floats(2, 5, 32),
        floats(2, 5, 16),
        floats(2, 5, 16),
        opset=23,
        q_num_heads=4,
        kv_num_heads=2,
        is_causal=1,
    ),
    case(MULTI_HEAD, *SPLIT, floats(48), MASK, num_heads=4),
    case(MULTI_HEAD, *SPLIT, None, None, floats(2, 4, 5, 5), num_heads=4),
    case(MULTI_HEAD, *SPLIT, num_heads=4, unidirectional=1),
    case(PACKED_ATTENTION, *PACKED, MASK, num_heads=4, stored=(1, 2)),
    case(PACKED_ATTENTION, *PACKED, np.int32([3, 5]), num_heads=4, stored=(1, 2)),
    case(PACKED_ATTENTION, *PACKED, num_heads=4, unidirectional=1, stored=(1, 2)),
]
SEQUENCE = floats(4, 2, 3)
LSTM, GRU = (floats(2, 20, 3), floats(2, 20, 5), floats(2, 40)), (floats(2, 15, 3), floats(2, 15, 5), floats(2, 30))
STARTS = (floats(2, 2, 5), floats(2, 2, 5))
BOTH = "bidirectional"
RECURRENCES = [
    case("LSTM", SEQUENCE, *(values[:1] for values in LSTM), hidden_size=5, outputs=3),
    case("LSTM", SEQUENCE, *LSTM[:2], None, None, *STARTS, hidden_size=5, direction=BOTH, outputs=3),
    case("LSTM", SEQUENCE, *(values[:1] for values in LSTM), hidden_size=5, direction="reverse", outputs=2),
    case("GRU", SEQUENCE, *(values[:1] for values in GRU), hidden_size=5, outputs=2),
    case("GRU", SEQUENCE, *GRU, hidden_size=5, linear_before_reset=1, direction=BOTH, outputs=2),
]
CASES = ELEMENTWISE + SHAPES + INDEXING + REDUCED + PRODUCTS + CONVOLUTIONS + POOLING + RESIZING + NORMS
CASES += ATTENTION + RECURRENCES


@pytest.mark.parametrize("found", CASES, ids=str)
def test_operator_computes_what_onnxruntime_computes(found: Case) -> None:
    check(found)


def test_every_supported_operator_is_compared() -> None:
    compared = {found.operator for found in CASES}
    elsewhere = {"Constant", "Swish", "com.microsoft.EmbedLayerNormalization"}  # onnxruntime runs no Swish yet

    assert {name for names in supported_operators().values() for name in names} - compared == elsewhere


def test_embeddings_tell_attention_how_long_the_rows_are() -> None:
    tables = {"w": floats(9, 8), "p": floats(6, 8), "k": floats(2, 8), "g": floats(8), "b": floats(8)}
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization", ["ids", "kinds", *tables, "mask"], ["x", "lengths"], domain="com.microsoft"
        ),
        helper.make_node("Attention", ["x", "a", "c", "lengths"], ["y"], domain="com.microsoft", num_heads=2),
    ]
    feeds = {"ids": np.int32([[3, 1, 4, 1, 5]] * 2), "kinds": np.int32([[0, 0, 1, 1, 1]] * 2), "mask": MASK}
    model = graph_of(nodes, feeds, ["y"], {**tables, "a": floats(8, 24), "c": floats(24)})

    wanted, got = run_both(model, feeds)

    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)


WINDOWS = st.tuples(
    st.integers(6, 11), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)
)


@settings(max_examples=60, deadline=None)
@given(WINDOWS, st.sampled_from(["MaxPool", "AveragePool", "Conv"]))
def test_sliding_windows_of_any_size_stop_where_onnxruntime_stops(
    window: tuple[int, int, int, int, int, int], operator: str
) -> None:
    size, kernel, stride, before, after, up = window
    attributes: dict[str, Any] = {"kernel_shape": [kernel], "strides": [stride], "pads": [before, after]}
    assume(max(before, after) < kernel)
    if operator == "Conv":
        check(case("Conv", floats(2, 3, size), floats(4, 3, kernel), **attributes))
    else:
        check(case(operator, floats(2, 3, size), ceil_mode=up, **attributes))


@settings(max_examples=60, deadline=None)
@given(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -1, 1, 2]))
def test_slices_with_any_bounds_take_the_same_elements(start: int, end: int, step: int) -> None:
    check(case("Slice", floats(6, 2), ints(start), ints(end), ints(0), ints(step)))
