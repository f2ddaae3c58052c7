"""How much a network loses with each of its units."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from workers.compression.families.weights import Floats, LayerInputs, Weight
from workers.compression.structure.relations import Elements
from workers.compression.structure.units import Group, Structure

Scores = npt.NDArray[np.float64]
"""Of each unit; more is more important."""


def columns_of(structure: Structure, weight: Weight) -> Elements:
    """The unit of each column of a weight's matrix; 0 where it does not read channels along the columns."""
    return np.asarray(_matrix_of_units(structure, weight, weight.order[weight.leading :], summed=True)[0])


def rows_of(structure: Structure, weight: Weight) -> Elements:
    """The unit of each row of a weight's matrix; 0 where it does not make channels along the rows."""
    return np.asarray(_matrix_of_units(structure, weight, weight.order[: weight.leading], summed=False)[:, 0])


def _matrix_of_units(structure: Structure, weight: Weight, places: Sequence[int], *, summed: bool) -> Elements:
    units = np.zeros(weight.shape, np.int64)
    axes = structure.stored.get(weight.name)
    for place in places if axes is not None else ():
        if ((weight.name, place) in structure.summed) is summed:
            shape = [1] * len(weight.shape)
            shape[place] = -1
            units = np.maximum(units, structure.units[structure.stored[weight.name][place]].reshape(shape))
    return weight.to_matrix(units).astype(np.int64)


def by_magnitude(structure: Structure, weights: Iterable[tuple[Weight, Floats]]) -> Scores:
    """The unit's share in the squared norm of each weight that makes or reads it, summed over the weights."""
    scores = np.zeros(structure.count)
    for weight, matrix in weights:
        squares = np.square(matrix, dtype=np.float64)
        total = max(float(squares.sum()), np.finfo(np.float64).tiny)
        np.add.at(scores, columns_of(structure, weight), squares.sum(axis=0) / total)
        np.add.at(scores, rows_of(structure, weight), squares.sum(axis=1) / total)
    return scores


def by_activations(structure: Structure, weights: Iterable[tuple[Weight, Floats, LayerInputs | None]]) -> Scores:
    """The unit's share in what each weight that reads it makes of real inputs, summed over these weights.

    A column w with inputs x adds ‖w‖² E[x²] to the squared output; without inputs, ‖w‖² stands for it.
    """
    scores = np.zeros(structure.count)
    for weight, matrix, inputs in weights:
        energy = np.square(matrix, dtype=np.float64).sum(axis=0)
        if inputs is not None:
            energy *= np.diagonal(inputs.gram)
        total = max(float(energy.sum()), np.finfo(np.float64).tiny)
        np.add.at(scores, columns_of(structure, weight), energy / total)
    return scores


def by_gradients(
    structure: Structure, weights: Sequence[tuple[Weight, Floats]], rows: Iterable[Mapping[str, Floats]]
) -> Scores:
    """Sum over the rows of the squared change of their loss without the unit, to first order.

    A factor on a unit's values is one on the columns that read them, so the loss's derivative by it is the sum over
    these columns of gradient times weight: the Taylor expansion of Molchanov et al. (arXiv:1906.10771, equation 8).

    Args:
        rows: Gradients of each row's loss, as the weights' matrices by name.
    """
    columns = {weight.name: columns_of(structure, weight) for weight, _ in weights}
    scores = np.zeros(structure.count)
    for gradients in rows:
        change = np.zeros(structure.count)
        for weight, matrix in weights:
            if weight.name in gradients:
                share = np.einsum("oi,oi->i", matrix, gradients[weight.name], dtype=np.float64)
                change += np.bincount(columns[weight.name], share, structure.count)
        scores += np.square(change)
    return scores


def comparable(scores: Scores, groups: Sequence[Group], scope: str) -> Scores:
    """Scores that can be ranked over all groups.

    Args:
        scope: ``global`` relates each to its group's mean (as Fang et al. do), ``layer`` takes its rank in the group.
    """
    result = np.zeros_like(scores)
    for group in groups:
        own = scores[group.units]
        if scope == "layer":
            result[group.units] = (np.argsort(np.argsort(own, kind="stable"), kind="stable") + 1) / len(own)
        else:
            result[group.units] = own / max(float(own.mean()), np.finfo(np.float64).tiny)
    return result
