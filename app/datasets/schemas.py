"""Datasets as they are uploaded and shown."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints

from app.fields import ShownName
from app.input_states import InputState
from app.jobs.schemas import Labels
from app.problems import ProblemBody
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import DatasetFields, Preprocessing
from workers.compression.specs.messages import Port

DATASET_READ_EXAMPLE: dict[str, Any] = {
    "id": "dst_01KAT6W9B2C4D6E8F0G2H4J6K8",
    "object": "dataset",
    "status": "ready",
    "error": None,
    "name": "digits test split",
    "format": "npz",
    "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "size_bytes": 460_000,
    "rows": 1797,
    "task": "classification",
    "fields": {
        "features": [{"name": "input", "shape": [1797, 64], "dtype": "float32"}],
        "target": {"name": "target", "shape": [1797], "dtype": "int64"},
    },
    "classes": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    "preprocessing": {},
    "labels": {},
    "warnings": [],
    "created_at": "2026-11-24T09:30:00Z",
}

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class DatasetForm(BaseModel):
    """The text fields of a dataset's upload."""

    model_config = ConfigDict(extra="forbid")

    name: ShownName | None = Field(None, description="Shown name; by default the file's.")
    labels: Json[Labels] = Field(default_factory=dict, description="JSON object of strings.")
    target_column: ColumnName | None = Field(None, description="Column or array with the labels; `target` if unset.")
    task: Task | None = Field(None, description="In place of the detected one.")
    preprocessing: Json[Preprocessing] = Field(
        default_factory=Preprocessing, description="JSON: how images or texts become the model's inputs."
    )

    def dataset_fields(self) -> DatasetFields:
        """What was said about the content."""
        return DatasetFields(
            target_column=self.target_column,
            task=self.task.value if self.task is not None else None,
            preprocessing=self.preprocessing,
        )


class DatasetPatch(BaseModel):
    """What can be changed about a dataset."""

    model_config = ConfigDict(extra="forbid")

    name: ShownName | None = None
    labels: Labels | None = Field(None, description="In place of the old ones.")


class Fields(BaseModel):
    """What the columns or arrays mean; the first axis is the rows."""

    features: list[Port]
    target: Port | None


class DatasetRead(BaseModel):
    """A dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [DATASET_READ_EXAMPLE]})

    id: str = Field(examples=["dst_01KAT6W9B2C4D6E8F0G2H4J6K8"])
    object: Literal["dataset"] = "dataset"
    status: InputState
    error: ProblemBody | None
    name: str
    format: DatasetFormat | None
    sha256: str
    size_bytes: int
    rows: int | None
    task: Task | None
    fields: Fields | None
    classes: list[str]
    preprocessing: Preprocessing
    labels: dict[str, str]
    warnings: list[str]
    created_at: datetime
