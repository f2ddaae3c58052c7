"""Weights that are mostly zero are stored without their zeros and come back to the last bit, whatever their pattern."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from tests.compression.families.onnx.test_self_expanding import run, stored
from workers.compression.coding.gaps import entries, entry_count, steps_to
from workers.compression.families.onnx import gate
from workers.compression.families.onnx.expanding import expand
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.specs.errors import InvalidModel, TooLarge

FLOAT = TensorProto.FLOAT
ROWS, COLUMNS = 60, 150
SIZE = ROWS * COLUMNS
LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
PATTERNS = {
    "no value at all": lambda occupied: occupied.fill(False),
    "the first alone": lambda occupied: (occupied.fill(False), occupied.__setitem__(0, True)),
    "the last alone": lambda occupied: (occupied.fill(False), occupied.__setitem__(-1, True)),
    "both ends": lambda occupied: occupied.__setitem__([0, -1], True),
    "empty rows": lambda occupied: occupied.reshape(ROWS, COLUMNS)[5:40].fill(False),
    "as drawn": lambda _: None,
}


def product(values: np.ndarray) -> OnnxModel:
    """One matrix product; with the identity as input it gives the weight."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ["n", len(values)])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", values.shape[1]])],
        [numpy_helper.from_array(values, "w")],
    )
    return OnnxModel(helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", 11)]))


def restored(proto: ModelProto, level: str, rows: int) -> tuple[np.ndarray, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.eye(rows, dtype=np.float32)})[0], session


def with_codebook(occupied: np.ndarray, bits: int, random: np.random.Generator) -> tuple[OnnxModel, np.ndarray]:
    """A product by a weight that is zero where nothing is occupied, stored as codes; and its values."""
    book = np.sort(np.append(random.normal(size=(1 << bits) - 1), 0.0)).astype(np.float32)
    zero = int(np.flatnonzero(book == 0.0)[0])
    others = np.setdiff1d(np.arange(1 << bits), zero).astype(np.uint8)
    codes = np.where(occupied, random.choice(others, occupied.size), zero).astype(np.uint8).reshape(ROWS, COLUMNS)
    model = product(book[codes])
    (weight,) = model.weights()
    blocks = Blocks.of_matrix(weight.matrix_shape, "tensor")
    form = CodebookWeight(np.asarray(weight.to_matrix(codes), np.uint8), book[None, None], bits, blocks)
    model.store([(weight, form)])
    return model, book[codes]


def is_sparse(model: OnnxModel) -> bool:
    return "ScatterElements" in {node.op_type for node in model.proto.graph.node}


occupations = st.tuples(
    st.sampled_from(sorted(PATTERNS)), st.sampled_from([0.0, 0.001, 0.01, 0.08, 0.25, 0.6, 1.0]), st.integers(0, 2**32)
)


def occupation(drawn: tuple[str, float, int]) -> tuple[np.ndarray, np.random.Generator]:
    pattern, density, seed = drawn
    random = np.random.default_rng(seed)
    occupied = random.random(SIZE) < density
    PATTERNS[pattern](occupied)
    return occupied, random


@settings(deadline=None, max_examples=60)
@given(occupations, st.integers(1, 8), st.sampled_from(sorted(LEVELS)))
def test_codes_come_back_and_no_larger_than_dense(drawn: tuple[str, float, int], bits: int, level: str) -> None:
    occupied, random = occupation(drawn)
    model, values = with_codebook(occupied, bits, random)
    gate.check(model.proto)
    outputs, _ = restored(model.proto, level, ROWS)
    np.testing.assert_array_equal(outputs, values)
    dense, _ = with_codebook(np.ones(SIZE, bool), bits, random)
    assert model.size_bytes() <= dense.size_bytes() + 16


@settings(deadline=None, max_examples=30)
@given(occupations, st.sampled_from(sorted(LEVELS)))
def test_floats_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[str, float, int], level: str
) -> None:
    occupied, random = occupation(drawn)
    values = np.where(occupied, random.normal(size=SIZE), 0.0).astype(np.float32).reshape(ROWS, COLUMNS)
    values[-1, 0] = -0.0
    model = product(values)
    model.leave_out_zeros()
    path = tmp_path_factory.mktemp("sparse") / "model.onnx"
    model.save(path)
    proto = onnx.load(path)
    gate.check(proto)
    reopened = OnnxModel(proto)
    assert reopened.size_bytes() <= product(values).size_bytes()
    (layer,) = reopened.stored_layers()
    assert layer.weights is not None
    np.testing.assert_array_equal(layer.weights.view(np.uint32), values.view(np.uint32))
    assert (layer.parameters, layer.nonzero) == (SIZE, np.count_nonzero(values))
    np.testing.assert_array_equal(restored(proto, level, ROWS)[0], values)


@given(
    st.lists(st.integers(0, 5000), unique=True).map(sorted),
    st.integers(1, 3000),
    st.integers(1, 8),
    st.sampled_from([1, 8]),
)
def test_entries_cover_the_positions_in_steps_that_fit(
    positions: list[int], beyond: int, width: int, multiple: int
) -> None:
    given_ = np.array(positions, np.int64)
    size = (positions[-1] if positions else 0) + beyond
    found = entries(given_, size, width, multiple)
    assert np.isin(given_, found).all()
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < size
    reach = (1 << width) - 1
    assert np.diff(found, prepend=0).max() <= reach
    assert size - 1 - found[-1] <= reach
    np.testing.assert_array_equal(np.cumsum(steps_to(found), dtype=np.int64), found)
    least = entry_count(given_, size, width)
    assert len(found) == (-(-least // multiple) * multiple if least + multiple <= size else len(found))


def test_layers_of_an_artifact_show_their_zeros_and_its_bytes() -> None:
    occupied, random = occupation(("as drawn", 0.08, 0))
    model, values = with_codebook(occupied, 4, random)
    assert is_sparse(model)
    (layer,) = model.stored_layers()
    assert layer.weights is not None
    np.testing.assert_array_equal(layer.weights, values)
    assert (layer.parameters, layer.nonzero) == (SIZE, int(occupied.sum()))
    assert layer.bytes < 0.15 * SIZE
    assert layer.bits == pytest.approx(8 * layer.bytes / SIZE)


def every_reader() -> OnnxModel:
    """Weights of products, a transposed one, a kernel, one in a branch and in a Constant, mostly zero."""

    def sparse(name: str, *shape: int) -> TensorProto:
        tensor = stored(name, *shape)
        values = numpy_helper.to_array(tensor)
        return numpy_helper.from_array(np.where(np.abs(values) < 1.6, np.float32(0), values), name)

    def branch(name: str) -> onnx.GraphProto:
        constant = helper.make_node("Constant", [], [f"{name}_weight"], value=sparse(f"{name}_weight", 64, 72))
        node = helper.make_node("MatMul", ["first", f"{name}_weight"], [f"{name}_out"], name=f"{name}_product")
        return helper.make_graph(
            [constant, node], name, [], [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)]
        )

    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="lookup"),
        helper.make_node("ReduceMean", ["embedded"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "square"], ["first"], name="projection"),
        helper.make_node(
            "If", ["condition"], ["chosen"], then_branch=branch("then"), else_branch=branch("else"), name="choice"
        ),
        helper.make_node("Gemm", ["chosen", "gemm"], ["wide"], transB=1, name="linear"),
        helper.make_node("Reshape", ["wide", "image"], ["pixels"]),
        helper.make_node("Conv", ["pixels", "kernel"], ["filtered"], kernel_shape=[3, 3], name="filter"),
        helper.make_node("ReduceMean", ["filtered"], ["y"], axes=[2, 3], keepdims=0),
    ]
    initializers = [
        sparse("table", 30, 64),
        sparse("square", 64, 64),
        sparse("gemm", 400, 72),
        sparse("kernel", 48, 16, 3, 3),
        numpy_helper.from_array(np.array(True), "condition"),
        numpy_helper.from_array(np.array([-1, 16, 5, 5], np.int64), "image"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])
    output = helper.make_tensor_value_info("y", FLOAT, ["n", 48])
    graph = helper.make_graph(nodes, "graph", [ids], [output], initializers)
    proto = helper.make_model(graph, ir_version=6, opset_imports=[helper.make_opsetid("", 11)])
    checker.check_model(proto, full_check=True)
    return OnnxModel(proto)


def packed(storage: str, tmp_path: Path) -> OnnxModel:
    model = every_reader()
    if storage == "floats":
        model.leave_out_zeros()
        model.save(tmp_path / "packed.onnx")
        return OnnxModel(onnx.load(tmp_path / "packed.onnx"))
    forms = []
    for weight in model.weights():
        matrix = model.matrix(weight)
        levels = np.unique(np.round(matrix[matrix != 0.0]))[:14]
        book = np.unique(np.append(levels, 0.0)).astype(np.float32)
        codes = np.abs(matrix[..., None] - book).argmin(axis=-1).astype(np.uint8)
        forms.append((weight, CodebookWeight(codes, book[None, None], 4, Blocks.of_matrix(matrix.shape, "tensor"))))
    model.store(forms)
    model.save(tmp_path / "packed.onnx")
    return model


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("storage", ["codes", "floats"])
def test_nothing_but_the_layers_is_left_to_run(storage: str, level: str, tmp_path: Path) -> None:
    check_in(storage, level, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("storage", ["codes", "floats"])
def test_nor_in_the_oldest_runtime(storage: str, level: str, oldest_runtime: Path, tmp_path: Path) -> None:
    check_in(storage, level, tmp_path, str(oldest_runtime))


def check_in(storage: str, level: str, tmp_path: Path, *python: str) -> None:
    model = packed(storage, tmp_path)
    gate.check(model.proto)
    assert model.proto.ir_version == 6
    expanded = OnnxModel(onnx.load(tmp_path / "packed.onnx"))
    assert expand(expanded.proto) >= 5
    assert not is_sparse(expanded)
    expanded.save(tmp_path / "dense.onnx")
    exact, plain = run(tmp_path / "dense.onnx", level, *python)
    outputs, operators = run(tmp_path / "packed.onnx", level, *python)
    np.testing.assert_array_equal(outputs, exact)
    by_row = {"BitShift", "Cast", "Reshape", "Shape", "Concat"} if storage == "codes" else set()
    assert operators - plain <= by_row
    assert (tmp_path / "packed.onnx").stat().st_size < 0.4 * (tmp_path / "dense.onnx").stat().st_size


def tensor(model: OnnxModel, part: str) -> TensorProto:
    return next(found for found in model.proto.graph.initializer if part in found.name)


def node(model: OnnxModel, operator: str) -> onnx.NodeProto:
    return next(found for found in model.proto.graph.node if found.op_type == operator)


def set_raw(found: TensorProto, values: np.ndarray) -> None:
    found.CopyFrom(numpy_helper.from_array(values, found.name))


def points_outside(model: OnnxModel) -> None:
    steps = tensor(model, "steps_packed")
    set_raw(steps, np.full_like(numpy_helper.to_array(steps), 255))


def stands_still(model: OnnxModel) -> None:
    steps = tensor(model, "steps_packed")
    set_raw(steps, np.zeros_like(numpy_helper.to_array(steps)))


def insert_before_the_sum(model: OnnxModel, *nodes: onnx.NodeProto) -> None:
    """Nodes that read what was summed up as "before" and make "steps"."""
    total = node(model, "CumSum")
    place = list(model.proto.graph.node).index(total)
    for added in reversed(nodes):
        added.input[0] = added.input[0].replace("before", total.input[0])
        model.proto.graph.node.insert(place, added)
    total.input[0] = "steps"


def steps_backwards(model: OnnxModel) -> None:
    insert_before_the_sum(
        model,
        helper.make_node("Cast", ["before"], ["signed"], to=TensorProto.INT8),
        helper.make_node("Cast", ["signed"], ["steps"], to=TensorProto.INT32),
    )


def steps_that_overflow(model: OnnxModel) -> None:
    model.proto.graph.initializer.append(numpy_helper.from_array(np.array(1 << 28, np.int32), "huge"))
    insert_before_the_sum(model, helper.make_node("Mul", ["before", "huge"], ["steps"]))


def summed_up_backwards(model: OnnxModel) -> None:
    node(model, "CumSum").attribute.append(helper.make_attribute("reverse", 1))


def many_zeros(model: OnnxModel) -> None:
    """A weight of a few hundred steps that is to have half a million values."""
    shape = node(model, "Expand").input[1]
    set_raw(next(f for f in model.proto.graph.initializer if f.name == shape), np.array([500_000], np.int64))


def far_too_many_zeros(model: OnnxModel) -> None:
    shape = node(model, "Expand").input[1]
    set_raw(next(f for f in model.proto.graph.initializer if f.name == shape), np.array([1 << 33], np.int64))


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (points_outside, "onnx_invalid"),
        (stands_still, "onnx_invalid"),
        (steps_backwards, "onnx_sparse_weight_refused"),
        (steps_that_overflow, "onnx_sparse_weight_refused"),
        (summed_up_backwards, "onnx_sparse_weight_refused"),
        (many_zeros, "onnx_expansion_too_large"),
        (far_too_many_zeros, "onnx_value_too_large"),
    ],
)
def test_the_gate_refuses_what_is_not_quite_a_sparse_weight(attack: Callable[[OnnxModel], None], reason: str) -> None:
    occupied, random = occupation(("as drawn", 0.08, 1))
    model, _ = with_codebook(occupied, 3, random)
    gate.check(model.proto)
    attack(model)
    with pytest.raises((InvalidModel, TooLarge)) as refused:
        gate.check(model.proto)
    assert refused.value.reason == reason
