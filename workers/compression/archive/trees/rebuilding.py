"""Trees of given columns."""

import numpy as np

from workers.compression.archive.trees.arrays import Tree
from workers.compression.archive.trees.columns import Leaves, floats_of, ordered
from workers.compression.archive.trees.derived import Shape, exact_figures, expected, levels, nodes_of
from workers.compression.archive.trees.gathered import Gathered


def rebuilt(gathered: Gathered) -> list[Tree]:
    """The trees, one after the other."""
    shape = Shape.of(gathered.columns)
    nodes = nodes_of(gathered.columns, shape, gathered.thresholds)
    with np.errstate(all="ignore"):
        if gathered.leaves is Leaves.FLOATS:
            values, impurity = _floats(gathered, shape)
        else:
            values, impurity = exact_figures(gathered.columns, shape, gathered.leaves, gathered.outputs)
            if gathered.residues is not None:
                impurity = floats_of(ordered(impurity) + gathered.residues[:, 0])
    nodes["impurity"] = impurity
    roots = np.flatnonzero(shape.depth == 0).tolist()
    return [
        Tree(nodes[first:last], values[first:last]) for first, last in zip(roots, [*roots[1:], len(nodes)], strict=True)
    ]


def _floats(gathered: Gathered, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Leaves from the table, then inner nodes from their children, the deepest first."""
    table = np.array([*gathered.table, 0], np.uint64)
    figures = np.zeros((len(shape.leaf), gathered.outputs + 1))
    leaf = np.flatnonzero(shape.leaf)
    figures[leaf, :-1] = floats_of(table[np.array([gathered.columns.held[node] for node in leaf], np.int64)])
    steps = gathered.residues
    if steps is not None:
        figures[leaf] = floats_of(ordered(figures[leaf]) + steps[leaf])
    for inner in levels(shape):
        guess = expected(inner, shape, figures)
        figures[inner] = guess if steps is None else floats_of(ordered(guess) + steps[inner])
    return figures[:, :-1], figures[:, -1]
