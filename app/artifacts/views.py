"""From artifact records to what clients see."""

from app.artifacts.records import ArtifactRecord
from app.artifacts.schemas import ArtifactRead


def artifact_read(artifact: ArtifactRecord) -> ArtifactRead:
    """One artifact."""
    return ArtifactRead.model_validate(
        {
            "id": artifact.id,
            "job": artifact.job_id,
            "kind": artifact.kind,
            "format": artifact.format,
            "name": artifact.name,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
            "load": artifact.load,
            "created_at": artifact.created_at,
        }
    )
