"""Fine-tuning steps."""

from typing import ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.step import Need
from workers.compression.specs.training import Globs, SupervisedStep, TransferStep


class FullFinetune(TransferStep):
    """All weights learn, lower layers slower or later if wanted (ULMFiT, arXiv:1801.06146)."""

    summary: ClassVar[str] = "Train all weights on labelled data, with a new last layer where the labels are new"
    default: ClassVar[bool] = True

    technique: Literal["finetune"] = "finetune"
    method: Literal["full"] = "full"
    freeze: Globs = Field((), description="Weights whose name matches one of these globs stay as they are.")
    layer_decay: float = Field(
        1.0, gt=0.0, le=1.0, description="Each layer learns at this share of the rate of the one above it."
    )
    unfreeze_epochs: float = Field(
        0.0, ge=0.0, le=1000.0, description="Epochs after which the next layer below joins; 0: all from the start."
    )


class HeadFinetune(TransferStep):
    """A linear probe: only the last layer learns, on what the frozen body makes of the data."""

    summary: ClassVar[str] = "Train a new last layer on the frozen body's features"

    technique: Literal["finetune"] = "finetune"
    method: Literal["head"] = "head"


class LoraFinetune(TransferStep):
    """Low-rank updates of frozen weights (LoRA, arXiv:2106.09685), merged into them or kept apart."""

    summary: ClassVar[str] = "Train low-rank updates of frozen weights, merged or kept as a small adapter"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.PT2, ModelFormat.HUGGINGFACE)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize", "prune")

    technique: Literal["finetune"] = "finetune"
    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=1024)
    alpha: int = Field(16, ge=1, le=1_000_000, description="Updates are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="On the adapters' inputs.")
    include: Globs = Field((), description="Only layers whose name matches one of these globs get an update.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")
    merge: bool = Field(
        True, description="false: the updates are handed out besides the merged model, as an artifact of their own."
    )


class RecoverFinetune(SupervisedStep):
    """A short training after compression that keeps zeros, codebooks and ties exactly as they are."""

    summary: ClassVar[str] = "Regain quality after compression; zeros stay zero, shared values stay shared"
    needs: ClassVar[tuple[Need, ...]] = ("train",)

    technique: Literal["finetune"] = "finetune"
    method: Literal["recover"] = "recover"
    epochs: float = Field(1.0, gt=0.0, le=1000.0, description="Passes over the training rows.")
    teacher: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Weight of the original's outputs against the labels; without labels they are all there is.",
    )
