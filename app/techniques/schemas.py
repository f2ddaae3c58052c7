"""HTTP bodies of the catalogue."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.compression.specs.evidence import Evidence
from workers.compression.specs.formats import Family, ModelFormat


class TechniqueRead(BaseModel):
    """A technique with one method: what it does, what it serves and needs, how it was seen to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "object": "technique",
                    "technique": "quantize",
                    "method": "dynamic",
                    "default": True,
                    "summary": "8-bit weights, activations quantized on the fly; needs no data",
                    "formats": ["onnx", "pt2", "huggingface"],
                    "families": ["neural_network"],
                    "needs": [],
                    "conflicts": ["quantize"],
                    "schema": {"type": "object", "properties": {"bits": {"const": 8, "default": 8}}},
                    "evidence": [],
                    "applies": True,
                    "why_not": None,
                }
            ]
        }
    )

    object: Literal["technique"] = "technique"
    technique: str
    method: str
    default: bool = Field(description="Whether a step without `method` means this one.")
    summary: str
    formats: list[ModelFormat]
    families: list[Family]
    needs: list[str]
    conflicts: list[str] = Field(description="Steps that may not stand before this one in a recipe.")
    parameters: dict[str, Any] = Field(alias="schema", description="JSON schema of the step.")
    evidence: list[Evidence] = Field(description="Measured runs on real models.")
    applies: bool | None = Field(None, description="Only with `?model=`.")
    why_not: str | None = Field(None, description="Only with `?model=`.")
