"""What goes is made up for: smaller errors of a layer's outputs than zeros alone leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.compression.families.weights import LayerInputs
from workers.compression.pruning.calibrated import SparseGpt, Wanda
from workers.compression.pruning.masks import Floats, mask
from workers.compression.pruning.second_order import compensated, fitted
from workers.compression.specs.pruning_pattern import UNSTRUCTURED, Blocks, Groups, Pattern

PATTERNS: list[Pattern] = [UNSTRUCTURED, Groups(2, 4), Groups(1, 3), Blocks(4, 1), Blocks(2, 8), Blocks(3, 5)]


def layer(seed: int = 0, rows: int = 24, columns: int = 150) -> tuple[Floats, Floats]:
    """A weight, and the Gram matrix of inputs that depend on each other."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(columns, columns)) * np.geomspace(1, 0.05, columns)
    inputs = (random.normal(size=(500, columns)) @ mixing).astype(np.float32)
    return random.normal(size=(rows, columns)).astype(np.float32), inputs.T @ inputs / 500


def error(matrix: Floats, other: Floats, gram: Floats) -> float:
    return float(np.sum((matrix - other) @ gram * (matrix - other)))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_compensation_keeps_outputs_nearer_than_zeros_alone_in_every_pattern(pattern: Pattern) -> None:
    matrix, gram = layer()
    made = compensated(matrix, gram, 0.5, pattern)

    plain = np.where(mask(np.abs(matrix), 0.5, pattern), matrix, 0)
    assert error(matrix, made, gram) < 0.5 * error(matrix, plain, gram)


@pytest.mark.parametrize("pattern", [Blocks(1, 1), Blocks(4, 1), Blocks(3, 5)], ids=str)
@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.05, 0.95))
def test_compensation_takes_the_exact_number_of_blocks(pattern: Blocks, share: float) -> None:
    matrix, gram = layer()
    gone = compensated(matrix, gram, share, pattern) == 0

    rows, columns = gone.shape
    blocks = [
        gone[top : top + pattern.height, left : left + pattern.width]
        for top in range(0, rows, pattern.height)
        for left in range(0, columns, pattern.width)
    ]
    assert all(block.all() or not block.any() for block in blocks)
    assert sum(bool(block.all()) for block in blocks) == round(share * len(blocks))


def test_compensation_keeps_at_most_n_of_m() -> None:
    matrix, gram = layer()
    stays = compensated(matrix, gram, 0.5, Groups(2, 4)) != 0

    assert (stays[:, :148].reshape(24, -1, 4).sum(axis=2) == 2).all()
    assert (stays[:, 148:].sum(axis=1) == 2).all()


def test_the_fit_is_the_least_squares_solution_for_what_stays() -> None:
    matrix, gram = layer(rows=5, columns=40)
    stays = mask(np.abs(matrix), 0.5)
    made = fitted(matrix, np.where(stays, matrix, 0), gram, stays)

    assert not made[~stays].any()
    damped = gram + 0.01 * np.diagonal(gram).mean() * np.eye(40)
    for row, kept, found in zip(matrix, stays, made, strict=True):
        exact = np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ row)
        np.testing.assert_allclose(found[kept], exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("criterion", [Wanda, SparseGpt])
@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_columns_that_only_meet_zeros_go_first_and_leave_no_nan(
    criterion: type[Wanda | SparseGpt], fit: bool, pattern: Pattern
) -> None:
    matrix, gram = layer()
    gram[:, 60:90] = gram[60:90] = 0
    made = criterion(LayerInputs(gram, np.sqrt(np.diagonal(gram)), 500), fit=fit).pruned(matrix, 0.5, pattern)

    assert np.isfinite(made).all()
    if pattern == UNSTRUCTURED:
        dead = made[:, 60:90] == 0
        assert dead.mean() > 0.85
    assert error(matrix, made, gram) < error(matrix, np.zeros_like(matrix), gram)


def test_wanda_compares_within_an_output() -> None:
    matrix = np.array([[1, 2, 3, 4], [100, 200, 300, 400]], np.float32)
    gram = np.diag(np.array([16, 1, 1, 0.01], np.float32))
    made = Wanda(LayerInputs(gram, np.sqrt(np.diagonal(gram)), 1), fit=False).pruned(matrix, 0.5, UNSTRUCTURED)

    assert made.tolist() == [[1, 0, 3, 0], [100, 0, 300, 0]]
