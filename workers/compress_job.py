"""A compression: compress, store, read back, probe and compare in fresh processes, report."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.artifacts.repository import store_file
from app.jobs import service
from app.jobs.recipe_checks import student_of
from app.jobs.records import JobRecord
from app.jobs.schemas import ARCHIVE, JobSpec
from app.jobs.states import JobState
from app.models.records import ModelRecord
from workers import outputs
from workers.artifact_checks import check_format, check_something_compressed, plain_format, plain_name
from workers.checkpoints import Keeper, lend
from workers.compression import report
from workers.compression.specs.formats import RUNNABLE_FORMATS, ModelFormat
from workers.compression.specs.messages import (
    Checkpoint,
    Compare,
    Comparison,
    Compress,
    Compressed,
    Data,
    ExtraFile,
    ModelFile,
    Probe,
    ProbeResult,
)
from workers.compression.specs.recipe import Recipe
from workers.compression.specs.report import Report, StoredModel
from workers.conclusion import Conclusion
from workers.inputs import Lent
from workers.measuring import measuring_slot
from workers.sensitivities import keep, known_of
from workers.stage import Stages
from workers.stored_files import StoredFile, add_artifacts, store_reports, with_archive

COMPRESS, PROBE_ORIGINAL, PROBE_COMPRESSED, COMPARE = "compress", "probe-original", "probe-compressed", "compare"
_WINDOWS = {COMPRESS: (0.0, 0.55), PROBE_ORIGINAL: (0.55, 0.6), PROBE_COMPRESSED: (0.6, 0.65), COMPARE: (0.65, 0.98)}


@dataclass(frozen=True)
class _Inputs:
    """The job's files, lent out by the store, and their description for the engine."""

    spec: JobSpec
    model: ModelRecord
    original: ModelFile
    data: Data
    students: dict[str, ModelFile]
    paths: tuple[Path, ...]


def compress(stages: Stages, job: JobRecord) -> Conclusion:
    """Carries out a compression up to its last transaction."""
    with ExitStack() as lent:
        inputs = _borrow(stages, job, lent)
        compressed = _compress(stages, job, inputs, lend(stages, job, lent))
        artifact = _store_artifact(stages, compressed)
        extras = [_store_extra(stages, extra) for extra in compressed.extras]
        read_back = lent.enter_context(stages.workplace.storage.local(artifact.sha256))
        stored = ModelFile(path=str(read_back), format=compressed.format, sha256=artifact.sha256)
        comparison = with_archive(_measure(stages, inputs, stored), extras)
        check_something_compressed(inputs.spec.recipe, comparison.metrics, compressed.layers)
        made = _report(stages, job, inputs, artifact, compressed, comparison)
        files = [artifact, *extras, *_store_reports(stages, made)]
    return _conclude(made, files)


def _borrow(stages: Stages, job: JobRecord, lent: ExitStack) -> _Inputs:
    storage = stages.workplace.storage
    with stages.workplace.database.reading() as session:
        model = session.get_one(ModelRecord, job.model_id)
        uses = service.data_for(session, job)
        spec = service.spec_of(job)
        named = [student for step in spec.recipe if (student := student_of(step)) is not None]
        students = {student: session.get_one(ModelRecord, student) for student in named}
    files = Lent(storage, (model, *students.values()), uses, lent)
    by_id = {student: files.model(found) for student, found in students.items()}
    return _Inputs(spec, model, files.model(model), files.data, by_id, files.paths)


def _compress(stages: Stages, job: JobRecord, inputs: _Inputs, checkpoints: tuple[Checkpoint, ...]) -> Compressed:
    spec, settings = inputs.spec, stages.workplace.settings
    known = known_of(stages, job, inputs.original) if _quantizes(spec.recipe) else ()
    request = Compress(
        model=inputs.original,
        recipe=spec.recipe,
        data=inputs.data,
        target=spec.target,
        evaluation=spec.evaluation,
        seed=spec.seed,
        students=inputs.students,
        checkpoints=checkpoints,
        checkpoint_seconds=settings.checkpoint_seconds,
        threads=settings.child_threads,
        archive=ARCHIVE in spec.outputs,
        sensitivities=known,
    )
    with Keeper(stages, job, stages.folder / COMPRESS, len(spec.recipe)) as keeper:
        made = stages.run(
            COMPRESS,
            request,
            Compressed,
            window=_WINDOWS[COMPRESS],
            readable=(*inputs.paths, *(Path(checkpoint.path) for checkpoint in checkpoints)),
            on_checkpoint=keeper.offer,
        )
    for measured in made.sensitivities:
        keep(stages, job, request, measured)
    newest = next(iter((*made.sensitivities, *known)), None)
    return made if newest is None else made.model_copy(update={"layers": newest.filled_in(made.layers)})


def _quantizes(recipe: Recipe) -> bool:
    return any(step.technique == "quantize" for step in recipe)


def _store_artifact(stages: Stages, compressed: Compressed) -> StoredFile:
    """Checks what the child made, as if it had been uploaded, and puts it into the store."""
    sha256, size = _store_made(stages, compressed.path, compressed.format)
    name = plain_name(compressed.name, "model")
    return StoredFile("model", compressed.format.value, name, sha256, size, compressed.load)


def _store_extra(stages: Stages, extra: ExtraFile) -> StoredFile:
    """The same for a file beside the model; only formats that models come in are looked into."""
    form = plain_format(extra.format)
    sha256, size = _store_made(stages, extra.path, ModelFormat(form) if form in set(ModelFormat) else None)
    return StoredFile(extra.kind, form, plain_name(extra.name, extra.kind), sha256, size, extra.load)


def _store_made(stages: Stages, relative: str, announced: ModelFormat | None) -> tuple[str, int]:
    workplace = stages.workplace
    path = outputs.made_file(stages.folder / COMPRESS, relative, workplace.settings.child_file_bytes)
    if announced is not None:
        check_format(path, announced)
    sha256 = outputs.hash_of(path)
    stages.check()
    return sha256, store_file(workplace.database, workplace.storage, path, sha256, move=True)


def _measure(stages: Stages, inputs: _Inputs, stored: ModelFile) -> Comparison:
    """Probes each model alone, then compares the two, while nothing else on this host measures."""
    spec, data = inputs.spec, inputs.data
    readable = (*inputs.paths, Path(stored.path))
    with measuring_slot(stages.workplace.settings.data_dir, stages.check):
        # Nobody runs bare tensors: how fast this process opens them says nothing about the user's own.
        runs = inputs.original.format in RUNNABLE_FORMATS
        request = Compare(
            original=inputs.original,
            compressed=stored,
            probes=_probe(stages, inputs, stored, readable) if runs else None,
            data=data,
            target=spec.target,
            evaluation=spec.evaluation,
            recipe=spec.recipe,
            seed=spec.seed,
        )
        return stages.run(COMPARE, request, Comparison, window=_WINDOWS[COMPARE], readable=readable)


def _probe(
    stages: Stages, inputs: _Inputs, stored: ModelFile, readable: tuple[Path, ...]
) -> tuple[ProbeResult, ProbeResult]:
    original, compressed = (
        stages.run(
            name,
            Probe(
                model=file,
                original=inputs.original,
                data=inputs.data,
                target=inputs.spec.target,
                evaluation=inputs.spec.evaluation,
                seed=inputs.spec.seed,
            ),
            ProbeResult,
            window=_WINDOWS[name],
            readable=readable,
        )
        for name, file in ((PROBE_ORIGINAL, inputs.original), (PROBE_COMPRESSED, stored))
    )
    return original, compressed


def _report(
    stages: Stages,
    job: JobRecord,
    inputs: _Inputs,
    artifact: StoredFile,
    compressed: Compressed,
    comparison: Comparison,
) -> Report:
    original = StoredModel(
        name=inputs.model.name,
        format=inputs.original.format,
        sha256=str(inputs.original.sha256),
        size_bytes=Path(inputs.original.path).stat().st_size,
    )
    return report.build(
        original=original,
        artifact=StoredModel(
            name=artifact.name, format=compressed.format, sha256=artifact.sha256, size_bytes=artifact.size_bytes
        ),
        compressed=compressed,
        comparison=comparison,
        recipe=inputs.spec.recipe,
        seed=inputs.spec.seed,
        job=job.id,
        environment=stages.workplace.facts(),
    )


def _store_reports(stages: Stages, made: Report) -> list[StoredFile]:
    return store_reports(
        stages,
        {
            ("json", "report.json"): made.model_dump_json(indent=2, exclude_none=True),
            ("markdown", "report.md"): report.to_markdown(made),
            ("html", "report.html"): report.to_html(made),
        },
    )


def _conclude(made: Report, files: list[StoredFile]) -> Conclusion:
    def write(session: Session, job: JobRecord) -> None:
        add_artifacts(session, job, files)

    plain = made.model_dump(mode="json", exclude_none=True)
    return Conclusion(
        JobState.SUCCEEDED,
        {
            "outcome": "unconstrained",
            "termination_reason": "completed",
            "metrics": plain["metrics"],
            "layers": plain["layers"],
            "warnings": plain["warnings"],
            "environment": plain["environment"],
            "report": plain,
            "progress": {"fraction": 1.0, "step": "done", "message": ""},
        },
        write,
    )
