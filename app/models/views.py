"""From model records to what clients see."""

from app.models.records import ModelRecord
from app.models.schemas import ModelRead


def model_read(model: ModelRecord) -> ModelRead:
    """One model."""
    found = model.inspection or {}
    return ModelRead.model_validate(
        {
            "id": model.id,
            "status": model.status,
            "error": model.error,
            "name": model.name,
            "format": model.format,
            "family": model.family,
            "sha256": model.sha256,
            "size_bytes": model.size_bytes,
            "parameters": found.get("parameters"),
            "inputs": found.get("inputs", []),
            "outputs": found.get("outputs", []),
            "labels": model.labels,
            "license": model.license,
            "warnings": found.get("warnings", []),
            "created_at": model.created_at,
        }
    )
