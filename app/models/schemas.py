"""Models as they are uploaded and shown."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json, StringConstraints

from app.fields import ShownName
from app.input_states import InputState
from app.jobs.schemas import Labels
from app.problems import ProblemBody
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port

MODEL_EXAMPLE = "mdl_01KAT6W4ZD0Q9V3H8M2N5R7T1X"

MODEL_READ_EXAMPLE: dict[str, Any] = {
    "id": MODEL_EXAMPLE,
    "object": "model",
    "status": "ready",
    "error": None,
    "name": "digits",
    "format": "onnx",
    "family": "neural_network",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 19_240,
    "parameters": 4810,
    "inputs": [{"name": "input", "shape": ["batch", 64], "dtype": "float32"}],
    "outputs": [{"name": "logits", "shape": ["batch", 10], "dtype": "float32"}],
    "labels": {"team": "search"},
    "license": "Apache-2.0",
    "warnings": [],
    "created_at": "2026-11-24T09:30:00Z",
}

License = Annotated[str, StringConstraints(max_length=200)]


class ModelForm(BaseModel):
    """The text fields of a model's upload."""

    model_config = ConfigDict(extra="forbid")

    name: ShownName | None = Field(None, description="Shown name; by default the file's.")
    labels: Json[Labels] = Field(default_factory=dict, description="JSON object of strings.")
    license: License | None = Field(None, examples=["Apache-2.0"])


class ModelPromote(BaseModel):
    """Makes an artifact a model, so that jobs chain."""

    model_config = ConfigDict(extra="forbid")

    artifact: Annotated[str, StringConstraints(max_length=40)] = Field(examples=["art_01KAT6WXYZ0123456789ABCDEF"])
    name: ShownName | None = None
    labels: Labels = Field(default_factory=dict)


class ModelPatch(BaseModel):
    """What can be changed about a model."""

    model_config = ConfigDict(extra="forbid")

    name: ShownName | None = None
    labels: Labels | None = Field(None, description="In place of the old ones.")


class ModelRead(BaseModel):
    """A model."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_READ_EXAMPLE]})

    id: str = Field(examples=[MODEL_EXAMPLE])
    object: Literal["model"] = "model"
    status: InputState
    error: ProblemBody | None
    name: str
    format: ModelFormat | None = Field(description="How it is stored.")
    family: Family | None = Field(description="What it is; known once it is ready.")
    sha256: str
    size_bytes: int
    parameters: int | None
    inputs: list[Port]
    outputs: list[Port]
    labels: dict[str, str]
    license: str | None
    warnings: list[str]
    created_at: datetime


class Ancestor(BaseModel):
    """One step back: the artifact, the job that made it and the model that job worked on."""

    artifact: str
    job: str | None
    model: str | None


class Descendant(BaseModel):
    """An artifact made from the model or its descendants, and the model it was promoted to, if it was."""

    job: str
    artifact: str
    model: str | None


class Lineage(BaseModel):
    """What a model was made from, nearest first, and what was made from it, oldest first."""

    object: Literal["lineage"] = "lineage"
    model: str = Field(examples=[MODEL_EXAMPLE])
    made_from: list[Ancestor]
    made: list[Descendant]
