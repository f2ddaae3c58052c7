from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.compression.pruning.masks import Mask, mask, pooled_masks
from workers.compression.specs.pruning_pattern import Blocks, Groups, parse

Floats = np.ndarray[Any, np.dtype[np.float32]]


def scattered(shape: tuple[int, int], seed: int, levels: int) -> Floats:
    """Scores of so many levels: where there are few, ties are the rule."""
    drawn = np.random.default_rng(seed).integers(0, levels, shape)
    return (drawn / levels).astype(np.float32)


matrices = st.builds(
    scattered,
    st.tuples(st.integers(1, 17), st.integers(1, 33)),
    st.integers(0, 1 << 30),
    st.sampled_from((2, 5, 1 << 20)),
)
shares = st.floats(0.01, 0.99)


def blocks_of(stays: Mask, pattern: Blocks) -> list[Mask]:
    rows, columns = stays.shape
    return [
        stays[top : top + pattern.height, left : left + pattern.width]
        for top in range(0, rows, pattern.height)
        for left in range(0, columns, pattern.width)
    ]


@given(matrices, shares)
def test_the_count_is_exact_and_nothing_that_goes_outweighs_what_stays(scores: Floats, share: float) -> None:
    stays = mask(scores, share)

    assert (~stays).sum() == round(share * scores.size)
    assert scores[~stays].max(initial=0.0) <= scores[stays].min(initial=np.inf)


@given(matrices, shares)
def test_how_a_matrix_lies_in_memory_does_not_matter(scores: Floats, share: float) -> None:
    for by_row in (False, True):
        there = mask(np.asfortranarray(scores), share, by_row=by_row)

        np.testing.assert_array_equal(there, mask(scores, share, by_row=by_row))


@given(st.lists(matrices, min_size=1, max_size=4), shares)
def test_a_pool_loses_the_exact_count_of_its_least_scores(scores: list[Floats], share: float) -> None:
    masks = pooled_masks(scores, share)

    gone = np.concatenate([own[~stays] for own, stays in zip(scores, masks, strict=True)])
    left = np.concatenate([own[stays] for own, stays in zip(scores, masks, strict=True)])
    assert len(gone) == round(share * sum(own.size for own in scores))
    assert gone.max(initial=0.0) <= left.min(initial=np.inf)


def test_of_equal_scores_the_first_go() -> None:
    ones = np.ones((2, 4), np.float32)

    assert mask(ones, 0.5).tolist() == [[False] * 4, [True] * 4]
    assert mask(ones, 0.5, by_row=True).tolist() == [[False, False, True, True]] * 2
    assert mask(ones, 0.5, Groups(1, 2)).tolist() == [[False, True, False, True]] * 2


@given(matrices, shares)
def test_by_row_outputs_lose_equally_many_and_all_together_the_exact_count(scores: Floats, share: float) -> None:
    gone = (~mask(scores, share, by_row=True)).sum(axis=1)

    assert gone.sum() == round(share * scores.size)
    assert gone.max() - gone.min() <= 1


@given(matrices, st.integers(2, 8).flatmap(lambda of: st.tuples(st.integers(1, of - 1), st.just(of))))
def test_n_of_every_m_neighbours_stay_and_they_are_the_greatest(scores: Floats, pair: tuple[int, int]) -> None:
    pattern = Groups(*pair)
    stays = mask(scores, 0.0, pattern)

    for left in range(0, scores.shape[1], pattern.of):
        own, kept = scores[:, left : left + pattern.of], stays[:, left : left + pattern.of]
        assert (kept.sum(axis=1) == min(pattern.keep, own.shape[1])).all()
        gone = np.where(kept, -np.inf, own).max(axis=1)
        assert (gone <= np.where(kept, own, np.inf).min(axis=1)).all()


@given(matrices, shares, st.integers(1, 5), st.integers(1, 5))
def test_blocks_go_as_a_whole_and_their_count_is_exact(scores: Floats, share: float, height: int, width: int) -> None:
    pattern = Blocks(height, width)
    for by_row in (False, True):
        found = blocks_of(mask(scores, share, pattern, by_row=by_row), pattern)

        assert all(block.all() or not block.any() for block in found)
        assert sum(not block.any() for block in found) == round(share * len(found))


def test_the_block_of_the_least_mean_goes_first() -> None:
    scores = np.array([[9, 0, 2, 2], [0, 0, 2, 2]], np.float32)

    assert mask(scores, 0.5, Blocks(2, 2)).tolist() == [[True, True, False, False]] * 2


def test_patterns_are_read_as_specs_write_them() -> None:
    assert parse("unstructured") == Blocks(1, 1)
    assert parse("2:4") == Groups(2, 4)
    assert parse("4x1") == Blocks(4, 1)
    with pytest.raises(ValueError, match="no pattern"):
        parse("2/4")
