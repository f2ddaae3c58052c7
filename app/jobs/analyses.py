"""From the request of an analysis to a resolved spec.

An analysis sees its data as the job would see it that quantizes by what it finds: the same rows calibrate. So its
request is resolved as that of a job of one step, and that job finds everything measured.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.input_states import InputState
from app.jobs import data_checks, planning, recipe_checks
from app.jobs.schemas import AnalysisCreate, AnalysisSpec, JobCreate, JobSpec
from app.jobs.splitting import split_roles
from app.models.records import ModelRecord
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.job import Evaluation
from workers.compression.specs.steps.quantize_weights import MixedQuantize


@dataclass(frozen=True)
class ResolvedAnalysis:
    """An analysis that can run, and the job that it looks ahead to."""

    spec: AnalysisSpec
    ahead: planning.Resolved


def resolve(session: Session, project_id: str, model_id: str, request: AnalysisCreate) -> ResolvedAnalysis:
    """Fills in defaults and refuses what cannot work.

    Raises:
        EngineError: the refusal, with a pointer to the field to blame.
    """
    job = JobCreate(
        model=model_id,
        data=request.data,
        recipe=(MixedQuantize(),),
        evaluation=Evaluation(input_shapes=request.input_shapes),
        execution=request.execution,
        seed=request.seed,
    )
    inputs = planning.find_inputs(session, project_id, job)
    _check_model(inputs.model)
    split = split_roles(job)
    data_checks.check_datasets(job, split, inputs.models(), inputs.datasets)
    spec = AnalysisSpec(**dict(request), model=model_id, split=split)
    return ResolvedAnalysis(spec, planning.Resolved(JobSpec(**dict(job), split=split), inputs))


def _check_model(model: ModelRecord) -> None:
    if model.status == InputState.READY and recipe_checks.why_not(MixedQuantize, model) is not None:
        formats = ", ".join(found.value for found in MixedQuantize.formats)
        raise UnsupportedTechnique(
            f"Sensitivities are measured by running a network ({formats}); model {model.id} is {model.format} "
            f"({model.family}).",
            reason="model_format",
        )
