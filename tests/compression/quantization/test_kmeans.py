"""Codebooks are as good as clustering can be, keep zeros, heed importance, and are the same for the same seed."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.kmeans import Clustering, cluster, nearest
from workers.compression.quantization.scaled_kmeans import cluster_with_scales
from workers.compression.quantization.uniform import Grid, quantize

RANDOM = np.random.default_rng(0)
HEAVY_TAILS = RANDOM.standard_t(4, (96, 64)).astype(np.float32)


def whole(matrix: np.ndarray) -> Blocks:
    return Blocks.of_matrix(matrix.shape, "tensor")


def squared_error(matrix: np.ndarray, restored: np.ndarray) -> float:
    return float(np.square(matrix.astype(np.float64) - restored).sum())


def best_of_all_clusterings(values: np.ndarray, count: int) -> float:
    """The least squared error of ``count`` intervals, by trying all of them."""
    ordered = np.sort(values.astype(np.float64))
    errors = []
    for cuts in combinations(range(1, len(ordered)), count - 1):
        parts = np.split(ordered, cuts)
        errors.append(sum(float(np.square(part - part.mean()).sum()) for part in parts))
    return min(errors)


@pytest.mark.parametrize("initialization", ["kmeans++", "linear"])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_no_worse_than_scikit_learn_with_ten_starts(bits: int, initialization: str) -> None:
    made = cluster(HEAVY_TAILS, whole(HEAVY_TAILS), Clustering(bits, initialization))
    peer = KMeans(1 << bits, n_init=10, random_state=0).fit(HEAVY_TAILS.reshape(-1, 1))
    assert squared_error(HEAVY_TAILS, made.restored()) <= 1.005 * peer.inertia_


@pytest.mark.parametrize("seed", range(5))
def test_small_sets_are_clustered_optimally(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(1, 24)).astype(np.float32)
    made = cluster(values, whole(values), Clustering(2))
    best = best_of_all_clusterings(values[0], 4)
    assert squared_error(values, made.restored()) == pytest.approx(best, rel=1e-4)


def test_each_group_of_rows_has_a_codebook_of_its_own_and_the_last_may_be_smaller() -> None:
    matrix = (RANDOM.normal(size=(10, 300)) * 10.0 ** np.arange(10)[:, None] * 1e-5).astype(np.float32)
    blocks = Blocks(matrix.shape, (4, 300))
    made = cluster(matrix, blocks, Clustering(4))
    assert made.codebooks.shape == (3, 1, 16)
    restored = made.restored()
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        alone = cluster(matrix[rows], whole(matrix[rows]), Clustering(4)).restored()
        assert squared_error(matrix[rows], restored[rows]) <= 1.1 * squared_error(matrix[rows], alone)


def test_the_codes_are_those_of_the_nearest_entries() -> None:
    for lengths in ((96, 64), (1, 64), (7, 64)):
        made = cluster(HEAVY_TAILS, Blocks(HEAVY_TAILS.shape, lengths), Clustering(3))
        book = np.repeat(made.codebooks[:, 0], lengths[0], axis=0)[: len(HEAVY_TAILS)].astype(np.float64)
        distance = np.abs(HEAVY_TAILS[:, :, None] - book[:, None, :])
        chosen = np.take_along_axis(distance, made.codes[..., None].astype(np.int64), 2)[..., 0]
        np.testing.assert_allclose(chosen, distance.min(axis=2), atol=1e-7)


@pytest.mark.parametrize("lengths", [(96, 64), (1, 64), (10, 64)])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_zeros_of_a_pruned_weight_stay_exactly_zero(bits: int, lengths: tuple[int, int]) -> None:
    pruned = np.where(np.abs(HEAVY_TAILS) < 1.5, 0.0, HEAVY_TAILS).astype(np.float32)
    made = cluster(pruned, Blocks(pruned.shape, lengths), Clustering(bits))
    restored = made.restored()
    assert (restored[pruned == 0.0] == 0.0).all()
    assert (restored != 0.0).any()
    assert np.corrcoef(restored.ravel(), pruned.ravel())[0, 1] > 0.5
    if bits > 1:
        assert (restored[pruned != 0.0] != 0.0).all()


def test_zeros_cost_the_other_values_one_entry_and_nothing_else() -> None:
    pruned = np.where(np.abs(HEAVY_TAILS) < 1.0, 0.0, HEAVY_TAILS).astype(np.float32)
    made = cluster(pruned, whole(pruned), Clustering(3))
    peer = KMeans(7, n_init=10, random_state=0).fit(pruned[pruned != 0.0].reshape(-1, 1))
    assert squared_error(pruned, made.restored()) <= 1.005 * peer.inertia_


def test_values_of_both_signs_that_cancel_do_not_become_zero() -> None:
    pruned = np.tile(np.array([0.0, 1.0, -1.0, 2.0, -2.0, 1e-6, -1e-6, 0.0], np.float32), (6, 4))
    pruned[2] = 0.0
    for lengths in ((6, 32), (1, 32), (4, 32)):
        restored = cluster(pruned, Blocks(pruned.shape, lengths), Clustering(2)).restored()
        np.testing.assert_array_equal(restored == 0.0, pruned == 0.0)


def test_a_few_distinct_values_are_restored_exactly() -> None:
    values = np.array([-3.0, -0.1, 0.0, 1e-3, 2.5], np.float32)
    shared = values[RANDOM.integers(0, 5, (200, 40))]
    shared[7, 7] = 100.0
    made = cluster(shared, whole(shared), Clustering(3))
    np.testing.assert_array_equal(made.restored(), shared)


def test_a_constant_is_restored_exactly() -> None:
    constant = np.full((16, 16), 0.37, np.float32)
    np.testing.assert_array_equal(cluster(constant, whole(constant), Clustering(4)).restored(), constant)


def test_columns_that_count_more_are_restored_better() -> None:
    importance = np.where(np.arange(64) < 8, 100.0, 1.0).astype(np.float32)
    matrix = np.where(importance > 1.0, RANDOM.normal(2.0, 1.0, (96, 64)), HEAVY_TAILS).astype(np.float32)
    plain, heeded = (cluster(matrix, whole(matrix), Clustering(3), found).restored() for found in (None, importance))
    important = importance > 1.0
    assert squared_error(matrix[:, important], heeded[:, important]) < 0.8 * squared_error(
        matrix[:, important], plain[:, important]
    )
    weighted = [float((np.square(matrix - restored) * importance).sum()) for restored in (heeded, plain)]
    assert weighted[0] < weighted[1]


def test_entries_of_many_codebooks_fit_float16_unless_the_weights_do_not() -> None:
    books = cluster(HEAVY_TAILS, Blocks(HEAVY_TAILS.shape, (1, 64)), Clustering(4)).codebooks
    np.testing.assert_array_equal(books, books.astype(np.float16))
    tiny = HEAVY_TAILS * np.float32(1e-8)
    made = cluster(tiny, Blocks(tiny.shape, (1, 64)), Clustering(4))
    assert squared_error(tiny, made.restored()) < 0.02 * float(np.square(tiny.astype(np.float64)).sum())


def test_the_seed_alone_decides() -> None:
    first, again, other = (
        cluster(HEAVY_TAILS, Blocks(HEAVY_TAILS.shape, (1, 64)), Clustering(4, seed=seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.codebooks, again.codebooks)
    np.testing.assert_array_equal(first.codes, again.codes)
    assert (first.codebooks != other.codebooks).any()


def test_neighbouring_floats_go_to_the_entry_they_equal() -> None:
    low = np.float32(1.0)
    pair = np.array([[low, np.nextafter(low, np.float32(2.0))]], np.float32)
    np.testing.assert_array_equal(nearest(pair, pair), [[0, 1]])


def test_scales_adapt_one_codebook_to_groups_of_unlike_size() -> None:
    matrix = (RANDOM.normal(size=(64, 96)) * 10.0 ** RANDOM.uniform(-3, 1, (64, 6)).repeat(16, axis=1)).astype(
        np.float32
    )
    plain = cluster(matrix, whole(matrix), Clustering(4)).restored()
    scaled = cluster_with_scales(matrix, 16, Clustering(4))
    assert scaled.scales is not None
    assert scaled.scales.codes.shape == (64, 6)
    assert len(scaled.scales.values) <= 256
    groups, restored = (found.reshape(-1, 16).astype(np.float64) for found in (matrix, scaled.restored()))
    relative = np.square(groups - restored).sum(axis=1) / np.square(groups).sum(axis=1)
    assert np.median(relative) < 0.01
    assert squared_error(matrix, scaled.restored()) < squared_error(matrix, plain)


def test_scaled_codebooks_beat_integers_in_groups_of_twice_the_length() -> None:
    matrix = RANDOM.normal(size=(128, 256)).astype(np.float32)
    blocks = Blocks.of_matrix(matrix.shape, "group", 32)
    uniform = quantize(matrix, Grid.of("affine", 4), blocks).restored()
    assert squared_error(matrix, cluster_with_scales(matrix, 16, Clustering(4)).restored()) < 0.8 * squared_error(
        matrix, uniform
    )


def test_groups_of_zeros_and_pruned_values_stay_zero_under_scales() -> None:
    pruned = np.where(np.abs(HEAVY_TAILS) < 1.0, 0.0, HEAVY_TAILS).astype(np.float32)
    pruned[3] = 0.0
    restored = cluster_with_scales(pruned, 16, Clustering(3)).restored()
    assert np.isfinite(restored).all()
    np.testing.assert_array_equal(restored == 0.0, pruned == 0.0)
