"""How long the training steps of a job take, before any of it has been seen.

A network does about one multiplication and one addition per weight for each *position* of a row that its layers pass
over: once for plain features, once per token of a text, many times for an image. Forward and backward together cost
three forward passes; a teacher's answers cost one forward pass of the teacher. Hence, per step::

    rows seen  = min(epochs * training rows, max_steps * batch_size * accumulation)
    operations = rows seen * positions * 2 * (3 * parameters + parameters of the teacher)
    seconds    = operations / speed + batches * overhead

Positions, speed and overhead are ranges, and so is the number of rows while the dataset is still being inspected.
"""

from collections.abc import Sequence
from math import ceil
from typing import TypeAlias

from app.input_states import InputState
from app.jobs.data_checks import inspection_of, ports_of
from app.jobs.planning import Resolved
from app.jobs.recipe_checks import models_worked_on
from app.models.records import ModelRecord
from workers.compression.specs.matching import TOKEN_INPUTS
from workers.compression.specs.steps.distill import DistillStep
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.training import TrainingStep

Range: TypeAlias = tuple[float, float, float]

_OPERATIONS_PER_SECOND: Range = (2e11, 2e10, 2e9)
_SECONDS_PER_BATCH: Range = (0.0003, 0.003, 0.03)
_UNKNOWN_ROWS: Range = (100.0, 10_000.0, 1_000_000.0)
_POSITIONS_OF_TEXT: Range = (8.0, 40.0, 128.0)
_POSITIONS_BY_RANK: dict[int, Range] = {3: (4.0, 32.0, 256.0), 4: (4.0, 64.0, 1024.0)}
_POSITIONS_OF_FEATURES: Range = (1.0, 1.0, 2.0)
_BYTES_PER_PARAMETER = 4


def training_seconds(resolved: Resolved) -> Range:
    """Seconds at best, typically and at worst that all training steps take together."""
    recipe, inputs = resolved.spec.recipe, resolved.inputs
    rows = _training_rows(resolved)
    total = [0.0, 0.0, 0.0]
    for step, model in zip(recipe, models_worked_on(recipe, inputs.model, inputs.students), strict=True):
        if not isinstance(step, TrainingStep):
            continue
        weights = 3 * _parameters(model) + (_parameters(inputs.model) if _asks_the_original(step) else 0)
        for bound, positions in enumerate(_positions(model)):
            seen = _rows_seen(step, rows[bound])
            operations = seen * positions * 2 * weights
            total[bound] += operations / _OPERATIONS_PER_SECOND[bound]
            total[bound] += ceil(seen / step.batch_size) * _SECONDS_PER_BATCH[bound]
    return (total[0], total[1], total[2])


def _training_rows(resolved: Resolved) -> Range:
    part = resolved.spec.split.roles.get("train")
    datasets = {dataset.id: dataset for dataset in resolved.inputs.datasets.values()}
    if part is None or datasets[part.dataset].status != InputState.READY:
        return _UNKNOWN_ROWS
    low, high = part.part
    rows = float(inspection_of(datasets[part.dataset])["rows"]) * (high - low)
    return (rows, rows, rows)


def _rows_seen(step: TrainingStep, rows: float) -> float:
    whole = step.epochs * rows
    if step.max_steps is None:
        return whole
    return min(whole, float(step.max_steps * step.batch_size * step.accumulation))


def _asks_the_original(step: TrainingStep) -> bool:
    return isinstance(step, DistillStep) or (isinstance(step, RecoverFinetune) and step.teacher > 0)


def _parameters(model: ModelRecord) -> int:
    return int(inspection_of(model).get("parameters") or model.size_bytes // _BYTES_PER_PARAMETER)


def _positions(model: ModelRecord) -> Sequence[float]:
    inputs = ports_of(model, "inputs")
    if any(port.name in TOKEN_INPUTS for port in inputs):
        return _POSITIONS_OF_TEXT
    return _POSITIONS_BY_RANK.get(max((len(port.shape) for port in inputs), default=0), _POSITIONS_OF_FEATURES)
