"""Units of ONNX graphs: what nothing reads any more can be left out, whatever the graph looks like."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.compression.structure.graphs import OPERATORS, SIDE, GraphBuilder
from tests.compression.structure.shrinking import masked_and_shrunk
from workers.compression.families.onnx.structure.reading import read_structure

INPUT = {"input": np.random.default_rng(1).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)}


@settings(max_examples=60, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(OPERATORS) - 1), min_size=1, max_size=10),
    seed=st.integers(0, 2**16),
    share=st.floats(0.1, 0.9),
)
def test_a_smaller_graph_computes_what_the_whole_one_does_without_reading_the_removed_channels(
    chosen: list[int], seed: int, share: float
) -> None:
    builder = GraphBuilder(seed)
    for number in chosen:
        OPERATORS[number](builder)

    masked, shrunk, model = masked_and_shrunk(builder.model(), INPUT, [INPUT], share, seed)

    onnx.checker.check_model(model.proto, full_check=True)
    read = {name for node in model.proto.graph.node for name in node.input}
    assert {tensor.name for tensor in model.proto.graph.initializer} <= read
    np.testing.assert_allclose(shrunk[0][0], masked[0][0], rtol=1e-3, atol=1e-3 * (1 + np.abs(masked[0][0]).max()))


@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_every_operator_of_the_random_graphs_leaves_something_to_remove(number: int) -> None:
    builder = GraphBuilder(number)
    builder.convolution()
    OPERATORS[number](builder)
    builder.convolution()

    groups = read_structure(builder.model(), INPUT).structure.groups()

    assert sum(len(group.units) for group in groups if len(group.units) > 1) > 6


def test_weights_in_constant_nodes_are_cut_like_others() -> None:
    builder = GraphBuilder(0)
    builder.convolution()
    builder.norm()
    proto = builder.model()
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes)

    masked, shrunk, model = masked_and_shrunk(proto, INPUT, [INPUT], 0.5, seed=0)

    onnx.checker.check_model(model.proto, full_check=True)
    np.testing.assert_allclose(shrunk[0][0], masked[0][0], rtol=1e-3, atol=1e-3)
    assert any(weight.matrix_shape[0] == 4 for weight in model.weights())


def test_an_operator_without_a_rule_keeps_all_it_touches() -> None:
    builder = GraphBuilder(0)
    name, channels = builder.values[-1]
    builder.add(builder.node("LRN", [name], size=3)[0], channels)
    builder.convolution()

    groups = read_structure(builder.model(), INPUT).structure.groups()

    assert not any("stored0" in group.makers for group in groups)
    assert any("stored2" in group.makers for group in groups)
