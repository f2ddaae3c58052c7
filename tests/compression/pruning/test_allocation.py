import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.compression.families.weights import Weight
from workers.compression.pruning.allocation import erdos_renyi_kernel

shapes = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=8)


def weights(shapes: list[tuple[int, int]]) -> list[Weight]:
    return [Weight(str(at), str(at), shape, "float32", "linear", (0, 1)) for at, shape in enumerate(shapes)]


@given(shapes, st.floats(0.01, 0.99))
def test_erk_keeps_the_total(shapes: list[tuple[int, int]], total: float) -> None:
    chosen = weights(shapes)
    found = erdos_renyi_kernel(chosen, total)

    assert all(-1e-9 <= share <= 1.0 for share in found.values())
    gone = sum(found[weight.name] * weight.size for weight in chosen)
    np.testing.assert_allclose(gone, total * sum(weight.size for weight in chosen), rtol=1e-9)


def test_erk_densities_follow_the_axes_and_small_weights_stay_whole() -> None:
    chosen = weights([(2, 3), (100, 200), (300, 400)])
    tiny, small, large = (1.0 - share for share in erdos_renyi_kernel(chosen, 0.9).values())

    assert tiny == 1.0
    np.testing.assert_allclose(small / large, (300 / 20000) / (700 / 120000))
