"""Whether a recipe makes sense in itself and for a model: checked as a whole before anything runs."""

from collections.abc import Mapping, Sequence

from app.input_states import InputState
from app.jobs.schemas import ARCHIVE, JobCreate, StepConflict
from app.models.records import ModelRecord
from workers.compression.specs.errors import IncompatibleSteps, InvalidSpec, UnsupportedTechnique
from workers.compression.specs.formats import NETWORK_FORMATS, Family, ModelFormat
from workers.compression.specs.recipe import STEP_CLASSES
from workers.compression.specs.step import Step
from workers.compression.specs.steps.distill import DistillStep

RUNTIME_OF_FORMAT = {
    ModelFormat.ONNX: "onnxruntime",
    ModelFormat.PT2: "torch",
    ModelFormat.HUGGINGFACE: "torch",
    ModelFormat.SAFETENSORS: "torch",
    ModelFormat.TORCH_STATE_DICT: "torch",
    ModelFormat.SKOPS: "scikit-learn",
}


def excludes(later: Step, earlier: Step) -> bool:
    """Whether ``earlier`` may not stand before ``later``."""
    return earlier.technique in later.conflicts or earlier.key() in later.conflicts


def find_conflicts(recipe: Sequence[Step]) -> list[StepConflict]:
    """Every pair of steps that exclude each other in this order."""
    return [
        StepConflict(
            pointer=f"/recipe/{second}",
            steps=(recipe[first].key(), recipe[second].key()),
            detail=_conflict_detail(recipe, first, second),
        )
        for second in range(len(recipe))
        for first in range(second)
        if excludes(recipe[second], recipe[first])
    ]


def _conflict_detail(recipe: Sequence[Step], first: int, second: int) -> str:
    names = f"{recipe[second].key()} (step {second}) cannot follow {recipe[first].key()} (step {first})"
    if excludes(recipe[first], recipe[second]):
        return f"{names}: a recipe can hold only one of them."
    return f"{names}: it would undo it. Put {recipe[second].key()} first."


def check_order(recipe: Sequence[Step]) -> None:
    """Refuses a recipe whose steps exclude each other; names the first pair."""
    conflicts = find_conflicts(recipe)
    if conflicts:
        raise IncompatibleSteps(conflicts[0].detail, reason="step_order", pointer=conflicts[0].pointer)


def working_order(recipe: Sequence[Step]) -> list[int]:
    """Positions of the steps in an order without conflicts, as close to the given one as possible.

    Where there is no such order, the given one.
    """
    left = list(range(len(recipe)))
    ordered: list[int] = []
    while left:
        # A step may come next if nothing that is left would then stand after it although it must not.
        free = [
            index
            for index in left
            if not any(excludes(recipe[other], recipe[index]) for other in left if other != index)
        ]
        if not free:
            return list(range(len(recipe)))
        ordered.append(free[0])
        left.remove(free[0])
    return ordered


def student_of(step: Step) -> str | None:
    """The id of the model that takes the original's place from this step on."""
    return step.student if isinstance(step, DistillStep) else None


def models_worked_on(
    recipe: Sequence[Step], model: ModelRecord, students: Mapping[str, ModelRecord]
) -> tuple[ModelRecord, ...]:
    """The model that each step works on: the job's own until a step puts a student in its place."""
    worked_on = []
    for step in recipe:
        student = student_of(step)
        model = model if student is None else students[student]
        worked_on.append(model)
    return tuple(worked_on)


def check_techniques(
    recipe: Sequence[Step], model: ModelRecord, students: Mapping[str, ModelRecord] | None = None
) -> None:
    """Refuses a step that does not serve the format or family of the model it works on, and names what does.

    Models that are still being inspected pass: the check is made again when that has ended.
    """
    for index, (step, current) in enumerate(zip(recipe, models_worked_on(recipe, model, students or {}), strict=True)):
        student = student_of(step)
        if student is not None:
            _check_teacher(step, model, f"/recipe/{index}")
        if current.status != InputState.READY:
            continue
        why = why_not(type(step), current) or step.refusal(ModelFormat(str(current.format)))
        if why is not None:
            pointer = f"/recipe/{index}" if student is None else f"/recipe/{index}/student"
            raise UnsupportedTechnique(why, reason="model_format", pointer=pointer)


def _check_teacher(step: Step, model: ModelRecord, pointer: str) -> None:
    if model.status == InputState.READY and not _can_teach(model):
        raise UnsupportedTechnique(
            f"{step.key()} needs a network that can be run as teacher; the job's model is {model.format} "
            f"({model.family}).",
            reason="teacher_format",
            pointer=pointer,
        )


def _can_teach(model: ModelRecord) -> bool:
    return model.family == Family.NEURAL_NETWORK and model.format in NETWORK_FORMATS


def why_not(step: type[Step], model: ModelRecord) -> str | None:
    """Why a technique cannot serve the model; None if it can."""
    if model.format in step.formats and model.family in step.families:
        return None
    formats = ", ".join(found.value for found in step.formats)
    serving = ", ".join(
        other.key() for other in STEP_CLASSES if model.format in other.formats and model.family in other.families
    )
    return (
        f"{step.key()} serves {formats} models; this one is {model.format} ({model.family}), "
        f"which {serving or 'no technique'} can serve."
    )


def check_target(request: JobCreate, model_format: ModelFormat) -> None:
    """Refuses a runtime that cannot run the model's format."""
    runtime = RUNTIME_OF_FORMAT[model_format]
    if request.target.runtime not in {"auto", runtime}:
        raise UnsupportedTechnique(
            f"{model_format.value} models run in {runtime}, not in {request.target.runtime}.",
            reason="target_runtime",
            pointer="/target/runtime",
        )


def check_outputs(request: JobCreate, model_format: ModelFormat) -> None:
    """Refuses any output but the model's own format and its archive."""
    for index, output in enumerate(request.outputs):
        if output not in {model_format, ARCHIVE}:
            raise UnsupportedTechnique(
                f"A {model_format.value} model can be written as {model_format.value} and archived, not as {output}.",
                reason="output_format",
                pointer=f"/outputs/{index}",
            )
    if len(set(request.outputs)) != len(request.outputs):
        raise InvalidSpec("Each output format can be named once.", pointer="/outputs")
