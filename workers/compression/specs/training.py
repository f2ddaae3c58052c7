"""What every step that trains has in common."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Glob, Need, Step

Globs = Annotated[tuple[Glob, ...], Field(max_length=1000)]
TRAINABLE_FORMATS = (ModelFormat.ONNX, ModelFormat.PT2, ModelFormat.HUGGINGFACE)


class TrainingStep(Step):
    """Fields of the training loop; a subclass per method says what is trained and towards what."""

    formats: ClassVar[tuple[ModelFormat, ...]] = TRAINABLE_FORMATS
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    needs: ClassVar[tuple[Need, ...]] = ("train",)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    compresses: ClassVar[bool] = False

    epochs: float = Field(3.0, gt=0.0, le=1000.0, description="Passes over the training rows.")
    max_steps: int | None = Field(None, ge=1, le=10_000_000, description="Ends earlier, after so many updates.")
    batch_size: int = Field(32, ge=1, le=4096)
    accumulation: int = Field(1, ge=1, le=1024, description="Batches whose gradients make up one update.")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = Field(
        None, gt=0.0, le=10.0, description="Peak; by default one that suits the method and the kind of model."
    )
    weight_decay: float = Field(0.01, ge=0.0, le=10.0, description="Not applied to vectors such as biases and norms.")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="Of sgd.")
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: float = Field(0.05, ge=0.0, lt=1.0, description="Share of the updates in which the rate rises from 0.")
    max_gradient_norm: float = Field(1.0, ge=0.0, le=1e6, description="Gradients are scaled down to it; 0: never.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that has it, else float32. Weights stay float32."
    )
    validation: float = Field(
        0.1, ge=0.0, le=0.5, description="Share of the training rows set aside to choose the best weights by."
    )
    patience: int | None = Field(
        None, ge=1, le=1000, description="Ends after so many validations in a row without improvement."
    )
    deterministic: bool = Field(
        True, description="Same seed, same weights, also after an interruption; refuses operators that cannot."
    )


class SupervisedStep(TrainingStep):
    """A training step that learns from labels."""

    needs: ClassVar[tuple[Need, ...]] = ("train", "labels")

    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: rare classes count for more, in inverse proportion to their rows."
    )
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)


class TransferStep(SupervisedStep):
    """A supervised step that may give the model a new last layer for another set of labels."""

    head: Literal["auto", "keep", "replace"] = Field(
        "auto", description="auto: a new last layer where the present one does not have one output per class."
    )
