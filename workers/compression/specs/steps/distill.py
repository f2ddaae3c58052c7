"""Distillation steps: a student learns from the job's original model."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from workers.compression.specs.training import TrainingStep

StudentId = Annotated[str, StringConstraints(pattern=r"^mdl_[0-9A-Z]{26}$")]


class DistillStep(TrainingStep):
    """Fields that every distillation shares; labels are used where there are any, and not needed."""

    technique: Literal["distill"] = "distill"
    student: StudentId | None = Field(
        None, description="A model that takes the original's place and learns from it; by default the job's own."
    )
    temperature: float = Field(2.0, gt=0.0, le=100.0, description="Softens both sides' class scores.")
    teacher: float = Field(0.9, ge=0.0, le=1.0, description="Weight of the original's outputs against the labels.")


class LogitsDistill(DistillStep):
    """The student's outputs follow the original's (Hinton et al., arXiv:1503.02531)."""

    summary: ClassVar[str] = "Train a student to give the original's outputs; needs no labels"
    default: ClassVar[bool] = True

    method: Literal["logits"] = "logits"


class FeaturesDistill(DistillStep):
    """Hidden states and attention relations follow too (TinyBERT, arXiv:1909.10351; MiniLMv2, arXiv:2012.15828)."""

    summary: ClassVar[str] = "Train a student to follow the original's hidden states and attention, where shapes allow"

    method: Literal["features"] = "features"
    hidden: float = Field(1.0, ge=0.0, le=1e3, description="Weight of the hidden states' distance.")
    attention: float = Field(1.0, ge=0.0, le=1e3, description="Weight of the attention relations' distance.")
