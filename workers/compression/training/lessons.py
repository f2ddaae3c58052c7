"""From a step and the job's data to what a network is to learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.datasets.balance import check_trainable
from workers.compression.families.model import Model
from workers.compression.families.trainable import Trainable, TrainableModel
from workers.compression.specs.errors import DatasetMismatch, InvalidSpec
from workers.compression.specs.formats import Task
from workers.compression.specs.training import SupervisedStep, TrainingStep, TransferStep
from workers.compression.training import optimizers
from workers.compression.training.feeding import Feed, Teacher
from workers.compression.training.loop import Lesson, Trained, train
from workers.compression.training.masking import Masking
from workers.compression.training.network import Network
from workers.compression.training.objectives import Classes, Labelled, Objective, objective_of
from workers.compression.training.optimizers import Rates
from workers.compression.training.schedule import Plan
from workers.compression.training.substitutes import Masked, Shared, keeping_structure


@dataclass(frozen=True)
class TrainingRows:
    """The rows of the role ``train``: some that updates come from, others that the best weights are chosen by."""

    train: Dataset
    validation: Dataset | None


def training_rows(spec: TrainingStep, context: Context) -> TrainingRows:
    """Sets rows aside for validation and checks that labels can be learnt from.

    Raises:
        DatasetMismatch: There are no training rows, or no labels where the step needs them.
        InvalidDataset: As ``check_trainable``.
    """
    dataset = context.train
    if dataset is None:
        raise DatasetMismatch("There are no rows to train on.", reason="training_data_needed")
    if "labels" in spec.needs and dataset.task is Task.FIDELITY:
        raise DatasetMismatch(
            f"{spec.key()} learns from labels; the training data has no target.", reason="labels_needed"
        )
    first, last = dataset.parts(spec.validation)
    for sentence in check_trainable(first):
        context.warn(sentence)
    return TrainingRows(first, last if last.rows else None)


def with_fitting_head(
    model: TrainableModel, spec: TransferStep, rows: TrainingRows, context: Context
) -> TrainableModel:
    """The model with one output per class or value of the labels; a new last layer where the step asks for one."""
    wanted = _wanted_outputs(rows.train)
    if spec.head == "keep" or wanted is None or (spec.head == "auto" and _answers(model, wanted, rows.train)):
        return model
    classes = rows.train.classes or tuple(str(number) for number in range(wanted))
    replaced = model.with_head(classes, context.seed)
    context.changed(f"new last layer with {wanted} output{'s' if wanted != 1 else ''}")
    return replaced


def _wanted_outputs(dataset: Dataset) -> int | None:
    """One per class or value; None where the model's outputs are compared with each other."""
    if dataset.task is Task.CLASSIFICATION:
        return len(dataset.classes)
    if dataset.task is Task.REGRESSION and dataset.targets is not None:
        return int(np.asarray(dataset.targets).reshape(dataset.rows, -1).shape[1])
    return None


def _answers(model: Model, wanted: int, dataset: Dataset) -> bool:
    """Whether an output already has one value per class, or one for two classes."""
    widths = [port.shape[1:] for port in model.outputs if len(port.shape) in (1, 2)]
    if dataset.task is Task.CLASSIFICATION and wanted == 2 and any(width in ((), (1,)) for width in widths):
        return True
    return any(width == (wanted,) or (wanted == 1 and width == ()) for width in widths)


def labelled_objective(spec: SupervisedStep, trainable: Trainable, dataset: Dataset) -> Labelled:
    """Cross-entropy, squared error or order of similarities, as the labels ask for."""
    if dataset.task is Task.CLASSIFICATION:
        weights = balanced_weights(dataset) if spec.class_weights == "balanced" else None
        return Classes(trainable.output_activation, weights, spec.label_smoothing)
    return plain_objective(trainable, dataset)


def plain_objective(trainable: Trainable, dataset: Dataset) -> Labelled:
    """The same without options."""
    targets = torch.as_tensor(np.asarray(dataset.targets, np.float64))
    return objective_of(dataset.task, targets, dataset.pooling, trainable.output_activation)


def balanced_weights(dataset: Dataset) -> torch.Tensor:
    """Rows / (classes * rows of the class), as scikit-learn's ``balanced``; 0 for classes without rows."""
    counts = torch.as_tensor(dataset.class_counts(), dtype=torch.float64)
    present = int((counts > 0).sum())
    weights = counts.sum() / (present * counts)
    return torch.where(counts > 0, weights, 0.0).float()


def freeze(trainable: Trainable, frozen: Sequence[str]) -> None:
    """Stops parameters from learning; names are the module's."""
    chosen = set(frozen)
    for name, parameter in trainable.module.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)


def matching(trainable: Trainable, globs: Sequence[str]) -> list[str]:
    """The module's names of parameters whose name in the model, or whose layer's, matches one of the globs."""
    found = []
    for name, _ in trainable.module.named_parameters():
        known = trainable.names[name]
        names = (known, known.rpartition(".")[0])
        if any(fnmatchcase(candidate, glob) for candidate in names for glob in globs):
            found.append(name)
    return found


def structured(
    trainable: Trainable,
    context: Context,
    *,
    always: bool = False,
    instead: Mapping[str, torch.nn.Module] | None = None,
) -> Network:
    """A network that keeps what earlier steps or its file's storage made of its matrices: zeros, shared values.

    Args:
        instead: Modules that compute some of the weights in another way, by the body's name.
        always: Whether also zeros and shared values that the job's model came with are kept.
    """
    substitutes = dict(instead or {})
    keeps_all = always or context.compressed
    for name, parameter in trainable.module.named_parameters():
        if name in substitutes or not parameter.requires_grad:
            continue
        kept = trainable.kept.get(name)
        if kept is not None:
            substitutes[name] = Shared(parameter) if kept == "values" else Masked(parameter)
        elif keeps_all and parameter.dim() > 1 and (keeper := keeping_structure(parameter)) is not None:
            substitutes[name] = keeper
    return Network(trainable, substitutes)


@dataclass(frozen=True)
class Course:
    """How a step's lesson differs from the plain one.

    Args:
        objective: What to minimize.
        judged_by: What labels judge by.
        rate: Peak learning rate where the step states none.
        teacher: Whose answers the objective compares with.
        shares: By name of a weight of the body its share of the rate.
        unfreeze: Epochs after which the next layer below joins; 0: all from the start.
        via: Gives hidden states besides the outputs.
        masking: Takes weights away between updates.
    """

    objective: Objective
    judged_by: Labelled | None
    rate: float
    teacher: Teacher | None = None
    shares: Mapping[str, float] | None = None
    unfreeze: float = 0.0
    via: torch.nn.Module | None = None
    masking: Masking | None = None


def run(
    model: TrainableModel,
    trainable: Trainable,
    network: Network,
    rows: TrainingRows,
    course: Course,
    spec: TrainingStep,
    context: Context,
) -> Trained:
    """Trains the network on the model's rows and says how it went."""
    learning = network.count()
    if not learning:
        raise InvalidSpec("Nothing is left to learn: every weight is frozen.", reason="all_frozen")
    feed = Feed(model, spec.batch_size, trainable.compute_batch, context.seed, course.teacher)
    shares = {own: share for name, share in (course.shares or {}).items() for own in network.learnt_by(name)}
    rates = Rates(spec.learning_rate or course.rate, shares)
    per_epoch = Plan.of(spec, feed.count(rows.train)).per_epoch
    joins = _joins(trainable, network, round(course.unfreeze * per_epoch))
    lesson = Lesson(
        rows.train, rows.validation, feed, course.objective, course.judged_by, rates, joins, course.via, course.masking
    )
    trained = train(network, lesson, spec, context)
    total = sum(parameter.numel() for parameter in trainable.module.parameters())
    context.changed(
        f"{learning:,} of {total:,} parameters trained in {trained.updates} updates ({trained.epochs:g} epochs of "
        f"{rows.train.rows} rows){_said(trained)}"
    )
    return trained


def customary_rate(trainable: Trainable) -> float:
    """For training all of the network, by its size."""
    return optimizers.customary_rate(sum(parameter.numel() for parameter in trainable.module.parameters()))


def _joins(trainable: Trainable, network: Network, every: int) -> dict[str, int]:
    """Gradual unfreezing: the last layer learns from the start, each one below it ``every`` updates later."""
    if not every:
        return {}
    return {
        own: every * (len(trainable.layers) - 1 - index)
        for index, names in enumerate(trainable.layers)
        for name in names
        for own in network.learnt_by(name)
    }


def _said(trained: Trained) -> str:
    verdict = trained.verdict
    if verdict is None:
        return ""
    figure = ("loss", verdict.loss) if verdict.value is None else (verdict.metric, verdict.value)
    return f"; best after {trained.best_update}: {figure[0]} {figure[1]:.4g} on the validation rows"
