"""Whether the data fits the model and the recipe, from what the two inspections found."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from app.datasets.records import DatasetRecord
from app.jobs.schemas import JobCreate, Role, Split
from app.jobs.splitting import needs_calibration
from app.models.records import ModelRecord
from workers.compression.specs.errors import DatasetMismatch, InvalidSpec, UnsupportedTechnique
from workers.compression.specs.formats import RUNNABLE_FORMATS, DatasetFormat, Task
from workers.compression.specs.messages import Port

TEXT_FIELDS = frozenset({"text", "text_a", "text_b"})
METRICS_OF_TASK: dict[Task, frozenset[str]] = {
    Task.CLASSIFICATION: frozenset({"accuracy", "f1", "auc", "fidelity"}),
    Task.REGRESSION: frozenset({"rmse", "mae", "r2", "spearman", "pearson", "fidelity"}),
    Task.SIMILARITY: frozenset({"spearman", "pearson", "fidelity"}),
    Task.FIDELITY: frozenset({"fidelity"}),
}


def check_data_is_given(request: JobCreate) -> None:
    """Refuses a recipe that looks at data when there is none, and a metric that needs labels without data."""
    if request.data.by_role():
        return
    if needs_calibration(request.recipe):
        index, step = next(found for found in enumerate(request.recipe) if "calibration" in found[1].needs)
        raise InvalidSpec(
            f"{step.key()} (step {index}) needs data to calibrate on: give data.calibration, data.train or "
            "data.evaluation.",
            reason="calibration_needed",
            pointer="/data/calibration",
        )
    _check_metric(request, Task.FIDELITY, "Without data")


def check_datasets(
    request: JobCreate, split: Split, model: ModelRecord, datasets: Mapping[Role, DatasetRecord]
) -> None:
    """Refuses datasets that the model cannot be fed with, as far as both have been inspected by now."""
    by_id = {dataset.id: (role, dataset) for role, dataset in datasets.items() if dataset.status == "ready"}
    for role, dataset in by_id.values():
        pointer = f"/data/{role}"
        if model.status == "ready":
            _check_fit(model, dataset, pointer)
        _check_rows(dataset, split, pointer)
    judged = split.roles.get("evaluation")
    if judged is not None and judged.dataset in by_id:
        dataset = by_id[judged.dataset][1]
        _check_metric(request, Task(_inspection(dataset)["task"]), f"With dataset {dataset.id}")
    _check_labels(request, [dataset for _, dataset in by_id.values()], len(by_id) == len(set(datasets.values())))


def _inspection(record: ModelRecord | DatasetRecord) -> Mapping[str, Any]:
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
    if not all_ready or any(_inspection(dataset)["task"] != Task.FIDELITY for dataset in ready):
        return
    for index, step in enumerate(request.recipe):
        if "labels" in step.needs:
            raise UnsupportedTechnique(
                f"{step.key()} (step {index}) needs a dataset with a target.",
                reason="labels_needed",
                pointer=f"/recipe/{index}",
            )


def _check_rows(dataset: DatasetRecord, split: Split, pointer: str) -> None:
    rows = int(_inspection(dataset)["rows"])
    for role, part in split.roles.items():
        low, high = part.part
        if part.dataset == dataset.id and int(rows * high) <= int(rows * low):
            raise DatasetMismatch(
                f"Dataset {dataset.id} has {rows} rows: none is left for {role} once every role has its part.",
                reason="too_few_rows",
                pointer=pointer,
            )


def _check_fit(model: ModelRecord, dataset: DatasetRecord, pointer: str) -> None:
    if model.format not in RUNNABLE_FORMATS:
        _mismatch(f"A {model.format} model is bare tensors: it cannot be run, so no data applies.", pointer)
    inputs = tuple(Port.model_validate(port) for port in _inspection(model).get("inputs", ()))
    features = tuple(Port.model_validate(port) for port in _inspection(dataset).get("features", ()))
    dataset_format = DatasetFormat(str(dataset.format))
    if dataset_format is DatasetFormat.JSONL and TEXT_FIELDS & {port.name for port in features}:
        _check_text(model, pointer)
    elif dataset_format in {DatasetFormat.CSV, DatasetFormat.PARQUET}:
        _check_columns(model, inputs, features, pointer)
    elif dataset_format is DatasetFormat.IMAGE_FOLDER:
        _check_images(inputs, pointer)
    else:
        _check_arrays(inputs, features, pointer)


def _check_text(model: ModelRecord, pointer: str) -> None:
    if not _inspection(model).get("details", {}).get("tokenizer"):
        _mismatch("Text needs the model's tokenizer.json: upload the model as an archive with it.", pointer)


def _check_columns(model: ModelRecord, inputs: Sequence[Port], features: Sequence[Port], pointer: str) -> None:
    fed = _fed(inputs)
    if len(fed) != 1:
        if {port.name for port in fed} <= {port.name for port in features}:
            return
        _mismatch(f"The model has {len(fed)} inputs: columns have to be named {_names(fed)}.", pointer)
    known = [axis for axis in fed[0].shape[1:] if isinstance(axis, int) and axis > 0]
    if len(known) != len(fed[0].shape) - 1:
        return
    wanted = 1
    for axis in known:
        wanted *= axis
    if wanted != len(features):
        _mismatch(
            f"{model.id} takes {wanted} features per row, the dataset has {len(features)} besides the target.", pointer
        )


def _check_images(inputs: Sequence[Port], pointer: str) -> None:
    fed = _fed(inputs)
    if len(fed) != 1 or len(fed[0].shape) != 4:
        _mismatch("Images need a model with one input of four axes (batch, channels, height, width).", pointer)


def _check_arrays(inputs: Sequence[Port], features: Sequence[Port], pointer: str) -> None:
    fed = _fed(inputs)
    arrays = {port.name: port for port in features}
    if len(fed) == 1 and fed[0].name not in arrays and set(arrays) == {"input"}:
        arrays = {fed[0].name: arrays["input"]}
    missing = [port for port in fed if port.name not in arrays]
    if missing:
        _mismatch(f"The model's inputs are {_names(fed)}; the dataset has no {_names(missing)}.", pointer)
    for port in fed:
        _check_array(port, arrays[port.name], pointer)


def _check_array(port: Port, array: Port, pointer: str) -> None:
    if len(port.shape) != len(array.shape):
        _mismatch(
            f"Input {port.name} has {len(port.shape)} axes {_shape(port)}, the dataset's array {len(array.shape)} "
            f"{_shape(array)}.",
            pointer,
        )
    for wanted, found in zip(port.shape[1:], array.shape[1:], strict=True):
        if isinstance(wanted, int) and isinstance(found, int) and min(wanted, found) > 0 and wanted != found:
            _mismatch(f"Input {port.name} is {_shape(port)}, the dataset's array {_shape(array)}.", pointer)
    if not _castable(array.dtype, port.dtype):
        _mismatch(f"Input {port.name} takes {port.dtype}, the dataset's array is {array.dtype}.", pointer)


def _castable(found: str, wanted: str) -> bool:
    """Whether values may be cast without losing what they mean: whole numbers to floats, not the reverse."""
    order = ("bool", "int", "float")
    ranks = [next((rank for rank, kind in enumerate(order) if kind in name), None) for name in (found, wanted)]
    if ranks[0] is None or ranks[1] is None:
        return found == wanted
    return ranks[0] <= ranks[1]


def _fed(inputs: Sequence[Port]) -> list[Port]:
    """The inputs that take rows; those without axes are constants."""
    return [port for port in inputs if port.shape]


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(port.name for port in ports)


def _shape(port: Port) -> str:
    return f"({', '.join(str(axis) for axis in port.shape)})"


def _mismatch(detail: str, pointer: str) -> NoReturn:
    raise DatasetMismatch(detail, reason="inputs_differ", pointer=pointer)
