"""Whether the data fits the model and the recipe, from what the two inspections found."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.datasets.records import DatasetRecord
from app.input_states import InputState
from app.jobs.schemas import JobCreate, Role, Split
from app.models.records import ModelRecord
from workers.compression.specs import matching
from workers.compression.specs.errors import DatasetMismatch, InvalidSpec, UnsupportedTechnique
from workers.compression.specs.formats import RUNNABLE_FORMATS, DatasetFormat, Task
from workers.compression.specs.messages import Port
from workers.compression.specs.step import Need

METRICS_OF_TASK: dict[Task, frozenset[str]] = {
    Task.CLASSIFICATION: frozenset({"accuracy", "f1", "auc", "fidelity"}),
    Task.REGRESSION: frozenset({"rmse", "mae", "r2", "fidelity"}),
    Task.SIMILARITY: frozenset({"spearman", "pearson", "fidelity"}),
    Task.FIDELITY: frozenset({"fidelity"}),
}


class _Rows(NamedTuple):
    """Rows that a step may need, and how it is said that there are none."""

    name: Need
    reason: str
    pointer: str
    sentence: str


_ROWS = (
    _Rows(
        "train",
        "training_data_needed",
        "/data/train",
        "needs data to train on: give data.train, data.calibration or data.evaluation",
    ),
    _Rows(
        "calibration",
        "calibration_needed",
        "/data/calibration",
        "needs data to calibrate on: give data.calibration, data.train or data.evaluation",
    ),
    _Rows(
        "selection",
        "selection_needed",
        "/recipe/{index}/max_drop",
        "finds what max_drop allows, which takes rows to choose by and others to confirm the choice on: give "
        "data.evaluation, data.calibration or data.train",
    ),
)


def check_data_is_given(request: JobCreate) -> None:
    """Refuses a recipe that learns from or looks at data when there is none, and a metric that needs labels."""
    if request.data.by_role():
        return
    for need in _ROWS:
        for index, step in enumerate(request.recipe):
            if need.name in step.required():
                raise InvalidSpec(
                    f"{step.key()} (step {index}) {need.sentence}.",
                    reason=need.reason,
                    pointer=need.pointer.format(index=index),
                )
    _check_metric(request, Task.FIDELITY, "Without data")


def check_datasets(
    request: JobCreate, split: Split, models: Sequence[ModelRecord], datasets: Mapping[Role, DatasetRecord]
) -> None:
    """Refuses datasets that the models cannot be fed with, as far as all have been inspected by now.

    Args:
        models: The job's own, and the students that its steps name.
    """
    by_id = {dataset.id: (role, dataset) for role, dataset in datasets.items() if dataset.status == InputState.READY}
    for role, dataset in by_id.values():
        pointer = f"/data/{role}"
        for model in models:
            if model.status == InputState.READY:
                _check_fit(model, dataset, pointer)
        _check_rows(dataset, split, pointer)
    judged = split.roles.get("evaluation")
    if judged is not None and judged.dataset in by_id:
        dataset = by_id[judged.dataset][1]
        _check_metric(request, Task(inspection_of(dataset)["task"]), f"With dataset {dataset.id}")
    _check_labels(request, [dataset for _, dataset in by_id.values()], len(by_id) == len(set(datasets.values())))


def inspection_of(record: ModelRecord | DatasetRecord) -> Mapping[str, Any]:
    """What the inspection found; empty before it has ended."""
    return record.inspection or {}


def _check_metric(request: JobCreate, task: Task, circumstance: str) -> None:
    metric = request.evaluation.metric
    possible = METRICS_OF_TASK[task]
    if metric is not None and metric not in possible:
        raise InvalidSpec(
            f"{circumstance} the task is {task.value}, whose metrics are {', '.join(sorted(possible))}; "
            f"{metric} is none of them.",
            reason="metric_of_other_task",
            pointer="/evaluation/metric",
        )


def _check_labels(request: JobCreate, ready: Sequence[DatasetRecord], all_ready: bool) -> None:
    if not all_ready or any(inspection_of(dataset)["task"] != Task.FIDELITY for dataset in ready):
        return
    for index, step in enumerate(request.recipe):
        if "labels" in step.required() and "train" not in step.required():
            raise UnsupportedTechnique(
                f"{step.key()} (step {index}) needs a dataset with a target.",
                reason="labels_needed",
                pointer=f"/recipe/{index}",
            )


def _check_rows(dataset: DatasetRecord, split: Split, pointer: str) -> None:
    rows = int(inspection_of(dataset)["rows"])
    for role, part in split.roles.items():
        low, high = part.part
        if part.dataset == dataset.id and int(rows * high) <= int(rows * low):
            raise DatasetMismatch(
                f"Dataset {dataset.id} has {rows} rows: none is left for {role} once every role has its part.",
                reason="too_few_rows",
                pointer=pointer,
            )


def _check_fit(model: ModelRecord, dataset: DatasetRecord, pointer: str) -> None:
    """The engine feeds data by the same rules (``specs.matching``), so what passes here can be fed."""
    if model.format not in RUNNABLE_FORMATS:
        raise DatasetMismatch(
            f"A {model.format} model is bare tensors: it cannot be run, so no data applies.",
            reason="model_not_runnable",
            pointer=pointer,
        )
    features = ports_of(dataset, "features")
    try:
        matching.fixed_batch(
            matching.assign_inputs(DatasetFormat(str(dataset.format)), features, ports_of(model, "inputs"))
        )
    except DatasetMismatch as mismatch:
        mismatch.detail = f"Dataset {dataset.id} does not fit model {model.id}. {mismatch.detail}"
        mismatch.pointer = pointer
        raise
    if matching.is_text(features) and not inspection_of(model).get("details", {}).get("tokenizer"):
        raise DatasetMismatch(
            f"Text needs the model's tokenizer: no tokenizer.json came with model {model.id}.",
            reason="tokenizer_missing",
            hint="Upload the model as an archive together with its tokenizer.json.",
            pointer=pointer,
        )


def ports_of(record: ModelRecord | DatasetRecord, side: str) -> tuple[Port, ...]:
    """A model's ``inputs`` or ``outputs``, or a dataset's ``features``."""
    return tuple(Port.model_validate(port) for port in inspection_of(record).get(side, ()))
