"""From a request to a resolved spec: everything that can be refused at submit time is refused here."""

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.datasets import repository as datasets_repository
from app.datasets.records import DatasetRecord
from app.input_states import InputState
from app.jobs import data_checks, recipe_checks, training_checks
from app.jobs.schemas import ARCHIVE, JobCreate, JobSpec, Role
from app.jobs.splitting import split_roles
from app.models import repository as models_repository
from app.models.records import ModelRecord
from workers.compression.specs.errors import InvalidSpec
from workers.compression.specs.formats import ModelFormat


@dataclass(frozen=True)
class Inputs:
    """The records that a request names."""

    model: ModelRecord
    datasets: dict[Role, DatasetRecord]
    students: dict[str, ModelRecord] = field(default_factory=dict)
    """Models that steps name, by their id."""

    def models(self) -> tuple[ModelRecord, ...]:
        """The job's own model and the students; the data has to fit each of them."""
        return (self.model, *self.students.values())

    def waiting_for(self) -> tuple[str, ...]:
        """Ids of those still being inspected."""
        inputs: list[ModelRecord | DatasetRecord] = [*self.models(), *self.datasets.values()]
        return tuple(dict.fromkeys(found.id for found in inputs if found.status == InputState.INSPECTING))

    def ids(self) -> tuple[str, ...]:
        """Every input once."""
        inputs: list[ModelRecord | DatasetRecord] = [*self.models(), *self.datasets.values()]
        return tuple(dict.fromkeys(found.id for found in inputs))


@dataclass(frozen=True)
class Resolved:
    """A request that can run, or that can run once ``inputs.waiting_for()`` is known to be good."""

    spec: JobSpec
    inputs: Inputs


def resolve(session: Session, project_id: str, request: JobCreate, *, check_order: bool = True) -> Resolved:
    """Fills in defaults and refuses what cannot work.

    Args:
        check_order: Whether steps that exclude each other are refused; validation names them instead.

    Raises:
        EngineError: the refusal, with a pointer to the field to blame.
    """
    inputs = find_inputs(session, project_id, request)
    if check_order:
        recipe_checks.check_order(request.recipe)
    data_checks.check_data_is_given(request)
    recipe_checks.check_techniques(request.recipe, inputs.model, inputs.students)
    worked_on = recipe_checks.models_worked_on(request.recipe, inputs.model, inputs.students)
    if worked_on[-1].status == InputState.READY:
        request = _resolve_for_format(request, ModelFormat(str(worked_on[-1].format)))
    split = split_roles(request)
    data_checks.check_datasets(request, split, inputs.models(), inputs.datasets)
    training_checks.check_training(request.recipe, split, worked_on, inputs.datasets)
    return Resolved(JobSpec(**dict(request), split=split), inputs)


def find_inputs(session: Session, project_id: str, request: JobCreate) -> Inputs:
    """The models and datasets of the request; each has to be there and not rejected."""
    model = _find_model(session, project_id, request.model, "/model")
    students = {
        student: _find_model(session, project_id, student, f"/recipe/{index}/student")
        for index, step in enumerate(request.recipe)
        if (student := recipe_checks.student_of(step)) is not None
    }
    found: dict[str, DatasetRecord] = {}
    datasets: dict[Role, DatasetRecord] = {}
    for role, dataset_id in request.data.by_role().items():
        if dataset_id not in found:
            found[dataset_id] = _find_dataset(session, project_id, role, dataset_id)
        datasets[role] = found[dataset_id]
    return Inputs(model, datasets, students)


def _find_model(session: Session, project_id: str, model_id: str, pointer: str) -> ModelRecord:
    model = models_repository.get(session, project_id, model_id, lock="use")
    if model is None:
        raise InvalidSpec(f"There is no such model: {model_id}.", reason="no_such_model", pointer=pointer)
    if model.status == InputState.REJECTED:
        raise InvalidSpec(f"Model {model.id} was rejected.", reason="model_rejected", pointer=pointer)
    return model


def _find_dataset(session: Session, project_id: str, role: Role, dataset_id: str) -> DatasetRecord:
    pointer = f"/data/{role}"
    dataset = datasets_repository.get(session, project_id, dataset_id, lock="use")
    if dataset is None:
        raise InvalidSpec(f"There is no such dataset: {dataset_id}.", reason="no_such_dataset", pointer=pointer)
    if dataset.status == InputState.REJECTED:
        raise InvalidSpec(f"Dataset {dataset.id} was rejected.", reason="dataset_rejected", pointer=pointer)
    return dataset


def _resolve_for_format(request: JobCreate, model_format: ModelFormat) -> JobCreate:
    recipe_checks.check_target(request, model_format)
    recipe_checks.check_outputs(request, model_format)
    runtime = recipe_checks.RUNTIME_OF_FORMAT[model_format]
    target = request.target.model_copy(update={"runtime": runtime})
    outputs = (model_format, ARCHIVE) if ARCHIVE in request.outputs else (model_format,)
    return request.model_copy(update={"target": target, "outputs": outputs})
