"""The best clustering of sorted numbers into intervals whose ends are at given places, by dynamic programming.

The error of the best ``k`` intervals that end at a place is the least, over where the last one begins, of the error of
the best ``k - 1`` up to there plus its own (Fisher 1958; Wang and Song, *The R Journal* 2011).
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def optimal_means(values: Doubles, weights: Doubles, count: int) -> Doubles:
    """Means of the ``count`` intervals of least squared error, or of fewer where there are fewer values.

    Time grows with ``count`` times the square of the number of values: some hundred at most.

    Args:
        values: Rising, shape (n,).
        weights: How much each counts, positive.
    """
    size = len(values)
    sums = [np.concatenate([[0.0], np.cumsum(terms)]) for terms in (weights, weights * values, weights * values**2)]
    weight, moment, square = (total[None, :] - total[:, None] for total in sums)
    rising = weight > 0.0
    error = np.where(rising, square - moment**2 / np.where(rising, weight, 1.0), np.inf)
    np.fill_diagonal(error, 0.0)
    columns = np.arange(size + 1)
    best, beginnings = error[0], []
    for _ in range(count - 1):
        total = best[:, None] + error
        beginning = np.argmin(total, axis=0)
        beginnings.append(beginning)
        best = total[beginning, columns]
    ends = [size]
    for beginning in reversed(beginnings):
        ends.append(int(beginning[ends[-1]]))
    edges = np.unique([0, *ends])
    return np.asarray(np.diff(sums[1][edges]) / np.diff(sums[0][edges]))
