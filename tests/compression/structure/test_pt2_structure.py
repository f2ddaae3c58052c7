"""Units of exported programs: what nothing reads any more can be left out, however torch writes the network."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.export import ExportedProgram

from tests.compression.structure.networks import OPERATORS, SIDE, RandomNetwork
from tests.compression.structure.shrinking import masked_and_shrunk_program
from workers.compression.families.torch.structure.reading import read_structure

ROWS = [torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count)) for count in (1, 3)]


def exported(network: torch.nn.Module, *, decomposed: bool = False) -> ExportedProgram:
    """A program whose number of rows varies."""
    shapes = ({0: torch.export.Dim("rows", max=64)},)
    program = torch.export.export(network, (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=shapes)
    return program.run_decompositions() if decomposed else program


@settings(max_examples=12, deadline=None)
@given(
    chosen=st.lists(st.integers(0, len(OPERATORS) - 1), min_size=1, max_size=8),
    seed=st.integers(0, 2**16),
    share=st.floats(0.1, 0.9),
    decomposed=st.booleans(),
)
def test_a_smaller_program_computes_what_the_whole_one_does_without_reading_the_removed_channels(
    chosen: list[int], seed: int, share: float, decomposed: bool
) -> None:
    network = RandomNetwork(seed)
    for number in chosen:
        OPERATORS[number](network)
    program = exported(network.finished(), decomposed=decomposed)

    feeds = [{"images": rows.numpy()} for rows in ROWS]

    masked, shrunk, model = masked_and_shrunk_program(program, feeds, share, seed)

    for one, other in zip(masked, shrunk, strict=True):
        np.testing.assert_allclose(other[0], one[0], rtol=1e-3, atol=1e-3 * (1 + np.abs(one[0]).max()))
    file = io.BytesIO()
    torch.export.save(model.program, file)
    reopened = torch.export.load(io.BytesIO(file.getvalue())).module()
    np.testing.assert_array_equal(reopened(ROWS[1]).detach().numpy(), shrunk[1][0])


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_every_operator_of_the_random_networks_leaves_something_to_remove(number: int, decomposed: bool) -> None:
    network = RandomNetwork(number)
    network.convolution()
    OPERATORS[number](network)
    network.convolution()
    program = exported(network.finished(), decomposed=decomposed)

    groups = read_structure(program, ROWS[:1]).structure.groups()

    assert sum(len(group.units) for group in groups if len(group.units) > 1) > 6


def test_an_operator_without_a_rule_keeps_all_it_touches() -> None:
    network = RandomNetwork(0)
    network.alone(lambda value: torch.flip(value, (1,)))
    network.convolution()
    program = exported(network.finished())

    groups = read_structure(program, ROWS[:1]).structure.groups()

    assert not any("layers.0.weight" in group.makers for group in groups)
    assert any("layers.1.weight" in group.makers for group in groups)
