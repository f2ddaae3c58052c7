"""Looking artifacts up."""

from sqlalchemy.orm import Session

from app.artifacts import repository
from app.artifacts.records import ArtifactRecord
from app.errors import NotFound


def get(session: Session, project_id: str, artifact_id: str) -> ArtifactRecord:
    """The project's artifact.

    Raises:
        NotFound: There is none with that id.
    """
    artifact = repository.get(session, project_id, artifact_id)
    if artifact is None:
        raise NotFound(f"There is no artifact {artifact_id[:64]}.")
    return artifact
