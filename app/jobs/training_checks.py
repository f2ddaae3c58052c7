"""Whether the steps that train can learn from the training data, from what the inspections found."""

from collections.abc import Mapping, Sequence

from app.datasets.records import DatasetRecord
from app.input_states import InputState
from app.jobs.data_checks import inspection_of, ports_of
from app.jobs.schemas import Role, Split
from app.models.records import ModelRecord
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.formats import Task
from workers.compression.specs.step import Step
from workers.compression.specs.training import TransferStep

_NAMED = 10


def check_training(
    recipe: Sequence[Step],
    split: Split,
    worked_on: Sequence[ModelRecord],
    datasets: Mapping[Role, DatasetRecord],
) -> None:
    """Refuses training without the labels it needs, towards other classes than are judged, or than a kept head has.

    Args:
        recipe: The job's steps.
        split: Which dataset plays which role.
        worked_on: The model that each step works on.
        datasets: The datasets of the request by role.
    """
    by_id = {dataset.id: dataset for dataset in datasets.values() if dataset.status == InputState.READY}
    train, judged = (
        by_id.get(part.dataset) if (part := split.roles.get(role)) is not None else None
        for role in ("train", "evaluation")
    )
    steps = [(index, step) for index, step in enumerate(recipe) if "train" in step.required()]
    if train is None or not steps:
        return
    for index, step in steps:
        _check_labels(index, step, train)
        if isinstance(step, TransferStep) and step.head == "keep":
            _check_head(index, step, worked_on[index], train)
    if judged is not None and judged.id != train.id:
        _check_same_classes(train, judged)


def _check_labels(index: int, step: Step, train: DatasetRecord) -> None:
    if "labels" in step.required() and _task(train) is Task.FIDELITY:
        raise UnsupportedTechnique(
            f"{step.key()} (step {index}) needs training data with a target; dataset {train.id} has none.",
            reason="labels_needed",
            pointer="/data/train",
        )


def _check_head(index: int, step: Step, model: ModelRecord, train: DatasetRecord) -> None:
    classes = len(_classes(train))
    outputs = [port.shape for port in ports_of(model, "outputs") if len(port.shape) in (1, 2)]
    widths = [1 if len(shape) == 1 else shape[1] for shape in outputs]
    known = [width for width in widths if isinstance(width, int) and width > 0]
    # A single score can tell two classes apart.
    if not known or len(known) < len(widths) or max(known) >= classes or (classes == 2 and 1 in known):
        return
    raise DatasetMismatch(
        f"Dataset {train.id} has {classes} classes; {step.key()} (step {index}) is to keep the last layer of model "
        f"{model.id}, which has {max(known)} outputs.",
        reason="head_too_narrow",
        hint='Set head to "auto" or "replace".',
        pointer="/data/train",
    )


def _check_same_classes(train: DatasetRecord, judged: DatasetRecord) -> None:
    """Classes are the model's outputs by number, so both lists have to agree as far as the shorter one goes."""
    tasks = {_task(train), _task(judged)}
    if Task.FIDELITY in tasks:
        return
    if len(tasks) == 2:
        raise DatasetMismatch(
            f"Dataset {train.id} to train on asks for {_task(train).value}, dataset {judged.id} to be judged by for "
            f"{_task(judged).value}.",
            reason="tasks_differ",
            pointer="/data/evaluation",
        )
    learnt, asked = _classes(train), _classes(judged)
    if asked != learnt[: len(asked)]:
        raise DatasetMismatch(
            f"Dataset {train.id} to train on has the classes {_listed(learnt)}, dataset {judged.id} to be judged by "
            f"has {_listed(asked)}.",
            reason="classes_differ",
            hint="Both need the same classes.",
            pointer="/data/evaluation",
        )


def _task(dataset: DatasetRecord) -> Task:
    return Task(inspection_of(dataset)["task"])


def _classes(dataset: DatasetRecord) -> list[str]:
    return list(inspection_of(dataset).get("classes", ()))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
