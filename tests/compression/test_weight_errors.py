"""Errors summed piece by piece in float32 are those of double precision over everything at once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from workers.compression.families.model import StoredLayer, WeightPieces
from workers.compression.weight_errors import WeightErrors, WeightFidelity, count_nonzero

Floats = npt.NDArray[np.float32]


def layer(values: Floats, piece: int | None = None) -> StoredLayer:
    def read() -> Iterator[Floats]:
        flat = values.reshape(-1)
        buffer = np.empty(piece or 1, np.float32)
        for start in range(0, len(flat), piece or 1):
            part = flat[start : start + (piece or 1)]
            buffer[: len(part)] = part  # each piece is good until the next one only
            yield buffer[: len(part)]

    weights = values if piece is None else WeightPieces(values.shape, read)
    return StoredLayer("w", "tensor", values.size, None, values.nbytes, 32.0, weights)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25], ids=["usual", "tiny", "huge"])
@pytest.mark.parametrize("pieces", [(None, None), (7, 1000), (4096, 64), (None, 100)])
def test_sums_over_pieces_of_any_length_are_those_over_all(scale: float, pieces: tuple[int | None, int | None]) -> None:
    random = np.random.default_rng(0)
    old = (random.normal(size=(50, 40)) * scale).astype(np.float32)
    new = np.where(random.random(old.shape) < 0.3, 0, old * np.float32(1.01))
    exact_old, exact_new = old.astype(np.float64), new.astype(np.float64)

    found = WeightFidelity.between(layer(old, pieces[0]), layer(new, pieces[1]))

    assert found is not None
    assert found.signal == pytest.approx((exact_old**2).sum(), rel=1e-5)
    assert found.noise == pytest.approx(((exact_new - exact_old) ** 2).sum(), rel=1e-5)
    cosine = (exact_old * exact_new).sum() / np.sqrt((exact_old**2).sum() * (exact_new**2).sum())
    assert found.cosine == pytest.approx(cosine, abs=1e-6)
    assert found.largest == pytest.approx(np.abs(exact_new - exact_old).max())
    assert found.nonzero == np.count_nonzero(new) == count_nonzero(layer(new, pieces[1]))


def test_equal_weights_have_no_error_and_zeros_point_nowhere() -> None:
    for values in (np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)):
        found = WeightFidelity.between(layer(values), layer(values, 5))
        assert found is not None
        assert (found.noise, found.cosine, found.largest) == (0.0, 1.0, 0.0)


def test_weights_of_other_shapes_are_not_compared() -> None:
    assert WeightErrors.between(layer(np.ones((3, 4), np.float32)), layer(np.ones((4, 3), np.float32))) is None
