"""Artifacts as they are shown."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


class ArtifactRead(BaseModel):
    """A file that a job made."""

    id: str = Field(examples=["art_01KAT6WXYZ0123456789ABCDEF"])
    object: Literal["artifact"] = "artifact"
    job: str = Field(examples=["job_01KAT6WP2A4B6C8D0E2F4G6H8J"])
    kind: Literal["model", "report", "archive", "bundle", "stage", "adapter"]
    format: str = Field(examples=["onnx"])
    name: str = Field(examples=["model.onnx"])
    sha256: str = Field(examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    size_bytes: int = Field(examples=[5_872_133])
    load: str = Field(description="Paste-ready snippet that opens the file; empty where there is none.")
    created_at: datetime
