"""Sensitivity maps between the database and the children: what is known goes in, what was measured comes out."""

from app.jobs.records import JobRecord
from app.sensitivities import repository
from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.fingerprints import fingerprint
from workers.compression.specs.messages import Analyze, Compress, ModelFile
from workers.compression.specs.sensitivity import SensitivityMap
from workers.stage import Stages


def known_of(stages: Stages, job: JobRecord, model: ModelFile) -> tuple[SensitivityMap, ...]:
    """What the project knows of a model, those maps first that changed last."""
    with stages.workplace.database.reading() as session:
        return tuple(repository.known(session, job.project_id, str(model.sha256)))


def keep(stages: Stages, job: JobRecord, request: Compress | Analyze, made: SensitivityMap) -> None:
    """Notes what a child measured, at once: it is true whatever becomes of the job, and its next attempt knows it.

    Raises:
        InvalidResult: It is not of the model and the rows that were given to the child.
    """
    given = (request.model.sha256, fingerprint(request.data, request.evaluation, request.seed))
    if (made.measured.model, made.measured.data) != given:
        raise InvalidResult("The sensitivities are of another model or other rows.", reason="result_invalid")
    with stages.workplace.database.transaction() as session:
        repository.keep(session, job.project_id, made)
