"""Files that a job made: in the blob store first, named by rows in the job's last transaction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.artifacts.records import ArtifactRecord
from app.artifacts.repository import hold_blob, store_file
from app.jobs.records import JobRecord
from workers import outputs
from workers.compression.specs.messages import Comparison
from workers.stage import Stages


@dataclass(frozen=True)
class StoredFile:
    """A made file that lies in the blob store but is named by no row yet."""

    kind: str
    format: str
    name: str
    sha256: str
    size_bytes: int
    load: str = ""


def store_reports(stages: Stages, contents: Mapping[tuple[str, str], str]) -> list[StoredFile]:
    """Puts a report's forms into the store.

    Args:
        contents: Text by format and file name.
    """
    stored = []
    for (form, name), content in contents.items():
        path = stages.folder / name
        path.write_text(content, "utf-8")
        sha256 = outputs.hash_of(path)
        size = store_file(stages.workplace.database, stages.workplace.storage, path, sha256, move=True)
        stored.append(StoredFile("report", form, name, sha256, size))
    return stored


def with_archive(comparison: Comparison, files: Iterable[StoredFile]) -> Comparison:
    """The same with the size of the archive among the files, which unpacks to the very model that was compared."""
    archive = next((file for file in files if file.kind == "archive"), None)
    if archive is None:
        return comparison
    metrics = comparison.metrics
    compressed = metrics.compressed.model_copy(update={"archive_bytes": archive.size_bytes})
    ratio = metrics.original.size_bytes / max(archive.size_bytes, 1)
    ratios = metrics.ratios.model_copy(update={"archive": ratio})
    return comparison.model_copy(
        update={"metrics": metrics.model_copy(update={"compressed": compressed, "ratios": ratios})}
    )


def add_artifacts(session: Session, job: JobRecord, files: Iterable[StoredFile]) -> None:
    """Names the files as the job's artifacts."""
    for file in files:
        hold_blob(session, file.sha256, file.size_bytes)
        session.add(
            ArtifactRecord(
                project_id=job.project_id,
                job_id=job.id,
                kind=file.kind,
                format=file.format,
                name=file.name,
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                load=file.load,
            )
        )
