"""An analysis: one child that measures, and a report of what it found."""

from contextlib import ExitStack
from pathlib import Path

from sqlalchemy.orm import Session

from app.jobs import service
from app.jobs.records import JobRecord
from app.jobs.states import JobState
from app.models.records import ModelRecord
from workers.checkpoints import Keeper, lend
from workers.compression import report
from workers.compression.specs.job import Evaluation
from workers.compression.specs.messages import Analyze, Analyzed, Checkpoint
from workers.compression.specs.report import AnalysisReport, StoredModel
from workers.conclusion import Conclusion
from workers.inputs import Lent
from workers.sensitivities import keep, known_of
from workers.stage import Stages
from workers.stored_files import StoredFile, add_artifacts, store_reports

ANALYZE = "analyze"
_WINDOW = (0.0, 0.98)


def analyze(stages: Stages, job: JobRecord) -> Conclusion:
    """Carries out an analysis up to its last transaction."""
    with ExitStack() as lent:
        with stages.workplace.database.reading() as session:
            model = session.get_one(ModelRecord, job.model_id)
            uses = service.data_for(session, job)
        files = Lent(stages.workplace.storage, (model,), uses, lent)
        request = _request(stages, job, model, files, lend(stages, job, lent))
        analyzed = _measure(stages, job, request, files)
        size = Path(request.model.path).stat().st_size
    stored = StoredModel(
        name=model.name, format=request.model.format, sha256=str(request.model.sha256), size_bytes=size
    )
    spec = service.analysis_of(job)
    made = report.build_analysis(
        model=stored,
        options=request.options,
        analyzed=analyzed,
        rows=_rows_in_words(analyzed, spec.split.summary),
        seed=spec.seed,
        job=job.id,
        environment=stages.workplace.facts(),
    )
    return _conclude(made, _store(stages, made))


def _request(
    stages: Stages, job: JobRecord, model: ModelRecord, files: Lent, checkpoints: tuple[Checkpoint, ...]
) -> Analyze:
    spec, file, settings = service.analysis_of(job), files.model(model), stages.workplace.settings
    return Analyze(
        model=file,
        options=spec.options(),
        data=files.data,
        evaluation=Evaluation(input_shapes=spec.input_shapes),
        seed=spec.seed,
        checkpoints=checkpoints,
        checkpoint_seconds=settings.checkpoint_seconds,
        threads=settings.child_threads,
        sensitivities=known_of(stages, job, file),
    )


def _measure(stages: Stages, job: JobRecord, request: Analyze, files: Lent) -> Analyzed:
    readable = (*files.paths, *(Path(checkpoint.path) for checkpoint in request.checkpoints))
    with Keeper(stages, job, stages.folder / ANALYZE, 1) as keeper:
        analyzed = stages.run(ANALYZE, request, Analyzed, window=_WINDOW, readable=readable, on_checkpoint=keeper.offer)
    keep(stages, job, request, analyzed.sensitivity)
    return analyzed


def _rows_in_words(analyzed: Analyzed, split: str) -> str:
    if analyzed.sensitivity.measured.synthetic:
        return "No data was given: the inputs were made up from their shapes and the seed."
    return split


def _store(stages: Stages, made: AnalysisReport) -> list[StoredFile]:
    return store_reports(
        stages,
        {
            ("json", "report.json"): made.model_dump_json(indent=2, exclude_none=True),
            ("markdown", "report.md"): report.to_markdown(made),
            ("html", "report.html"): report.to_html(made),
        },
    )


def _conclude(made: AnalysisReport, files: list[StoredFile]) -> Conclusion:
    def write(session: Session, job: JobRecord) -> None:
        add_artifacts(session, job, files)

    plain = made.model_dump(mode="json", exclude_none=True)
    return Conclusion(
        JobState.SUCCEEDED,
        {
            "outcome": "unconstrained",
            "termination_reason": "completed",
            "layers": plain["layers"],
            "warnings": plain["warnings"],
            "environment": plain["environment"],
            "report": plain,
            "progress": {"fraction": 1.0, "step": "done", "message": ""},
        },
        write,
    )
