"""Criteria that go by gradients: how much the loss would change if a weight were not there."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.families.weights import Weight
from workers.compression.pruning.criteria import ByScore, ScoringJudge
from workers.compression.pruning.masks import Floats
from workers.compression.specs.errors import DatasetMismatch, NumericalFailure
from workers.compression.specs.formats import Task
from workers.compression.specs.steps.prune_weights import GradientPrune
from workers.compression.training.failures import explaining_gradients
from workers.compression.training.feeding import Feed
from workers.compression.training.lessons import plain_objective
from workers.compression.training.objectives import Made, Objective, Rows, pooled

Order = Literal[1, 2]
LossOf = Literal["outputs", "labels"]
_LABELLED = frozenset({Task.CLASSIFICATION, Task.REGRESSION})


class ByGradients(ByScore):
    """How much the rows' loss would change without an element, as far as gradients tell.

    Args:
        gradients: Sum over the rows of the gradients' magnitudes, or of their squares.
        order: Which of the two.
    """

    def __init__(self, gradients: Floats, order: Order) -> None:
        self._gradients = gradients
        self._order = order

    def scores(self, matrix: Floats) -> Floats:
        """|w| times the magnitudes, or w² / 2 times the squares."""
        if self._order == 1:
            return np.abs(matrix) * self._gradients
        return np.float32(0.5) * np.square(matrix) * self._gradients


def judging_gradients(model: Model, context: Context, spec: GradientPrune, order: Order) -> ScoringJudge:
    """Differentiates the loss of single rows, or of as many as the network takes at a time.

    The loss is that of the labels, or how far the outputs move from what they are. That distance has no gradient where
    it is zero, but the mean square of the gradients of random projections of the outputs is its curvature, so those
    take its place.

    Args:
        order: 1 for the mean of |gradient times weight| (Molchanov et al., arXiv:1906.10771, by weight), 2 for half the
            mean of its square (OBD with the empirical Fisher information, Theis et al., arXiv:1801.05787).

    Raises:
        DatasetMismatch: There are no rows, or no classes or values with them where the step goes by labels.
    """
    dataset = rows_with_a_loss(context.any_data(), spec.loss).limited(spec.samples)

    def judge(weights: Sequence[Weight]) -> Iterator[tuple[Weight, ByScore]]:
        sums: dict[str, torch.Tensor] = {}
        for gradients in gradients_by_row(model, weights, dataset, spec.loss, context):
            for name, gradient in gradients.items():
                total = sums.setdefault(name, torch.zeros_like(gradient))
                total.add_(gradient.abs() if order == 1 else gradient.square())
        for weight in weights:
            if weight.name in sums:
                summed = np.asarray(weight.to_matrix(finite_gradients(weight, sums[weight.name])), np.float32)
                yield weight, ByGradients(summed, order)

    return judge


def rows_with_a_loss(dataset: Dataset | None, loss_of: LossOf) -> Dataset:
    """The rows, if they have what the loss is made of.

    Raises:
        DatasetMismatch: There are none, or none with classes or values where the loss is that of labels.
    """
    if dataset is None:
        raise DatasetMismatch("This method looks at calibration data; none was given.")
    if loss_of == "labels" and dataset.task not in _LABELLED:
        raise DatasetMismatch(
            "The calibration data has no classes or values as its target.",
            reason="labels_needed",
            hint='Leave "loss" at "outputs".',
        )
    return dataset


def gradients_by_row(
    model: Model, weights: Sequence[Weight], dataset: Dataset, loss_of: LossOf, context: Context
) -> Iterator[dict[str, torch.Tensor]]:
    """Gradients of the loss of single rows, or of as many as the network takes at a time, by the weight's name.

    Weights that do not learn are left out.
    """
    learner = as_trainable(model)
    trainable = learner.trainable()
    named = {known: name for name, known in trainable.names.items()}
    learning = [weight.name for weight in weights if weight.name in named]
    chosen = [trainable.module.get_parameter(named[name]) for name in learning]
    objective = plain_objective(trainable, dataset) if loss_of == "labels" else None
    random = torch.Generator().manual_seed(context.seed)
    feed = Feed(learner, 1, trainable.compute_batch, context.seed)
    torch.set_num_threads(context.threads)
    with explaining_gradients():
        for done, rows in enumerate(feed.once(dataset, torch.device("cpu"))):
            loss = _loss(Made(tuple(trainable.module(*rows.inputs))), rows, objective, dataset.pooling, random)
            gradients = torch.autograd.grad(loss, chosen, allow_unused=True, materialize_grads=True)
            yield {name: gradient.float() for name, gradient in zip(learning, gradients, strict=True)}
            context.progress(done / max(feed.count(dataset), 1), "gradients")


def _loss(made: Made, rows: Rows, objective: Objective | None, pooling: str, random: torch.Generator) -> torch.Tensor:
    if objective is not None:
        return objective.loss(made, rows)
    parts = []
    for output in made.floats:
        values = pooled(output, rows.mask, pooling)
        signs = torch.randint(0, 2, values.shape, generator=random) * 2.0 - 1.0
        parts.append((values * signs).sum() / values.detach().square().sum().sqrt().clamp_min(1e-12))
    return torch.stack(parts).sum()


def finite_gradients(weight: Weight, total: torch.Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """What gradients came to; raises ``NumericalFailure`` where that is not finite."""
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = total.numpy()
    if not np.isfinite(values).all():
        raise NumericalFailure(
            f"{weight.layer}: the gradients of the weight {weight.name} are not finite on the calibration rows.",
            hint="Give other calibration rows, exclude the layer, or prune by magnitude.",
        )
    return values
