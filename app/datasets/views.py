"""From dataset records to what clients see."""

from app.datasets.records import DatasetRecord
from app.datasets.schemas import DatasetRead


def dataset_read(dataset: DatasetRecord) -> DatasetRead:
    """One dataset."""
    found = dataset.inspection or {}
    fields = {"features": found["features"], "target": found.get("target")} if found else None
    return DatasetRead.model_validate(
        {
            "id": dataset.id,
            "status": dataset.status,
            "error": dataset.error,
            "name": dataset.name,
            "format": dataset.format,
            "sha256": dataset.sha256,
            "size_bytes": dataset.size_bytes,
            "rows": found.get("rows"),
            "task": found.get("task"),
            "fields": fields,
            "classes": found.get("classes", []),
            "preprocessing": dataset.fields.get("preprocessing", {}),
            "labels": dataset.labels,
            "warnings": found.get("warnings", []),
            "created_at": dataset.created_at,
        }
    )
