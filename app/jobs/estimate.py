"""What a job would take: from the model's own shape, corrected by what similar jobs took."""

from collections.abc import Sequence
from math import prod

from sqlalchemy.orm import Session

from app.config import Settings
from app.jobs.history import similar_jobs
from app.jobs.planning import Resolved
from app.jobs.recipe_checks import models_worked_on, student_of
from app.jobs.schemas import Band, Estimate, EstimateBasis
from app.jobs.splitting import needs_training
from app.jobs.training_time import training_seconds
from app.models.records import ModelRecord
from workers.compression.specs.errors import OutOfDisk, OutOfMemory

MEBIBYTE = 1 << 20

# Rules of thumb for one thread of a small server; the interpreters and libraries of a job's four children are in the
# fixed parts. Wide on purpose: history narrows them.
_FIXED_SECONDS = (4.0, 12.0, 60.0)
_SECONDS_PER_MEBIBYTE = (0.02, 0.1, 0.6)
_FIXED_MEMORY = (128.0 * MEBIBYTE, 350.0 * MEBIBYTE, 1024.0 * MEBIBYTE)
_MEMORY_PER_BYTE = (1.0, 3.0, 7.0)
# Gradients, the optimizer's two moments, and what the layers hold for the way back.
_TRAINING_MEMORY_PER_BYTE = (1.0, 4.0, 12.0)


def estimate(session: Session, settings: Settings, project_id: str, resolved: Resolved) -> Estimate:
    """Bands for time, memory and artifact size; refuses a job that cannot fit."""
    check_fits(resolved, settings)
    model = resolved.inputs.model
    steps = [step.key() for step in resolved.spec.recipe]
    final = _final_model(resolved)
    past = similar_jobs(session, project_id, steps, str(final.format)) if final.format else []
    seconds, size = _seconds(model.size_bytes, len(steps)), artifact_size(resolved)
    trains = needs_training(resolved.spec.recipe)
    if trains:
        added = training_seconds(resolved)
        bounds = zip((seconds.low, seconds.typical, seconds.high), added, strict=True)
        seconds = _band([plain + training for plain, training in bounds])
    # How long a training took says nothing about one over other rows and epochs.
    if past and not trains:
        slower = [job.seconds / _seconds(job.original_bytes, len(steps)).typical for job in past]
        seconds = _observed([factor * seconds.typical for factor in slower])
    # Nor does the size of one student say anything about another.
    if past and final is model:
        size = _observed([model.size_bytes * job.artifact_bytes / job.original_bytes for job in past])
    parameters = (model.inspection or {}).get("parameters")
    basis = EstimateBasis(parameters=parameters, size_bytes=model.size_bytes, similar_jobs=len(past))
    return Estimate(seconds=seconds, peak_memory_bytes=peak_memory(resolved), size_bytes=size, basis=basis)


def check_fits(resolved: Resolved, settings: Settings) -> None:
    """Refuses a job that even at best needs more memory or disk than a job's child may use."""
    memory, size = peak_memory(resolved), artifact_size(resolved)
    if memory.low > settings.child_memory_bytes:
        raise OutOfMemory(
            f"The job needs at least {memory.low / MEBIBYTE:,.0f} MiB of memory; "
            f"a job may use {settings.child_memory_bytes / MEBIBYTE:,.0f} MiB.",
            reason="memory_limit",
            hint="Raise PRESSROOM_CHILD_MEMORY_BYTES on a machine that has the memory.",
            pointer="/model",
        )
    if size.low > settings.child_file_bytes:
        raise OutOfDisk(
            f"The artifact would have at least {size.low / MEBIBYTE:,.0f} MiB; "
            f"a job may write files of {settings.child_file_bytes / MEBIBYTE:,.0f} MiB.",
            reason="file_limit",
            hint="Raise PRESSROOM_CHILD_FILE_BYTES on a machine that has the disk.",
            pointer="/model",
        )


def peak_memory(resolved: Resolved) -> Band:
    """Bytes that the hungriest child of the job needs."""
    recipe, models = resolved.spec.recipe, resolved.inputs.models()
    size = sum(model.size_bytes for model in models)
    worked_on = models_worked_on(recipe, resolved.inputs.model, resolved.inputs.students)
    trained = max(
        (model.size_bytes for step, model in zip(recipe, worked_on, strict=True) if "train" in step.required()),
        default=0,
    )
    bounds = zip(_FIXED_MEMORY, _MEMORY_PER_BYTE, _TRAINING_MEMORY_PER_BYTE, strict=True)
    return _band([fixed + each * size + training * trained for fixed, each, training in bounds])


def artifact_size(resolved: Resolved) -> Band:
    """Bytes of the artifact, by what each step does to the bytes of a typical model; a student starts anew."""
    recipe = resolved.spec.recipe
    taken_over = max((index for index, step in enumerate(recipe) if student_of(step) is not None), default=0)
    steps = recipe[taken_over:]
    size = _final_model(resolved).size_bytes
    return _band([size * prod(step.size_factors[index] for step in steps) for index in range(3)])


def _final_model(resolved: Resolved) -> ModelRecord:
    """The model that the artifact is made from: the last student, else the job's own."""
    return models_worked_on(resolved.spec.recipe, resolved.inputs.model, resolved.inputs.students)[-1]


def _seconds(size_bytes: int, steps: int) -> Band:
    work = size_bytes / MEBIBYTE * (1 + steps)
    return _band([fixed + each * work for fixed, each in zip(_FIXED_SECONDS, _SECONDS_PER_MEBIBYTE, strict=True)])


def _observed(observed: Sequence[float]) -> Band:
    mean = sum(observed) / len(observed)
    return Band(low=min(*observed, 0.7 * mean), typical=mean, high=max(*observed, 1.5 * mean))


def _band(values: Sequence[float]) -> Band:
    low, typical, high = values
    return Band(low=low, typical=typical, high=high)
