"""Steps that store once what stands in a model several times."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Need, Step
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.quantize import Globs


class TieShare(Step):
    """Tensors with the same type, shape and values are stored once; nothing else changes, to the last bit.

    With a tolerance, floats that are near each other are stored once too, as their mean.
    """

    summary: ClassVar[str] = "Store identical tensors once, bit for bit; with a tolerance near-identical ones too"
    formats: ClassVar[tuple[ModelFormat, ...]] = (*NETWORK_FORMATS, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    default: ClassVar[bool] = True
    size_factors: ClassVar[tuple[float, float, float]] = (0.3, 0.9, 1.0)

    technique: Literal["share"] = "share"
    method: Literal["tie"] = "tie"
    tolerance: float = Field(
        0.0,
        ge=0.0,
        le=0.1,
        description="Largest distance of a tensor to what is stored in its place, relative to its own norm; 0: none, "
        "outputs stay bit-identical.",
    )


class ClusterShare(Step):
    """Weights as codes into one codebook for all of them, each output's or group's values multiplied by a scale.

    Next to a codebook for each layer (``quantize.kmeans``) it saves codebooks and spends scales, which
    mostly restores weights better. In ONNX the nodes that multiply by the scales take some hundred bytes per layer.
    """

    summary: ClassVar[str] = "Weights as codes into one codebook that all layers share, with scales of their own"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    size_factors: ClassVar[tuple[float, float, float]] = (0.08, 0.2, 1.0)

    technique: Literal["share"] = "share"
    method: Literal["cluster"] = "cluster"
    bits: int = Field(6, ge=2, le=8, description="4 to 256 values in the codebook.")
    scale_group: Literal[0, 16, 32, 64, 128] = Field(
        0, description="Inputs of an output that share a scale, or a few less; 0: all inputs of an output do."
    )
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")
    recovery: RecoverFinetune | None = Field(
        None,
        description="Trains the codebook's values and the scales afterwards, as finetune.recover does; needs training "
        "data.",
    )

    def required(self) -> tuple[Need, ...]:
        """Data where values learn."""
        return self.recovery.required() if self.recovery else ()

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors cannot be trained."""
        if model_format in TENSOR_FORMATS and self.recovery is not None:
            return f"A {model_format.value} model cannot be trained: leave recovery out."
        return None


class CrossLayerShare(Step):
    """Layers or blocks of the same shape keep one copy of their matrices, with which the model then trains.

    ALBERT (arXiv:1909.11942) is built so; here a trained model is made so. Which of its blocks serve others too is
    found on calibration or training rows: by how far the outputs move when one block computes with another's matrices.
    Biases and norms stay each block's own. Hugging Face folders are not served: of a tensor that a file lacks, stock
    transformers does not know whose copy it was, and fills it at random.
    """

    summary: ClassVar[str] = "Blocks of the same shape share one copy of their matrices, and the model trains with it"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    needs: ClassVar[tuple[Need, ...]] = ("train",)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize", "share.cluster")
    size_factors: ClassVar[tuple[float, float, float]] = (0.2, 0.6, 1.0)

    technique: Literal["share"] = "share"
    method: Literal["cross_layer"] = "cross_layer"
    copies: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="How many blocks of each kind keep matrices of their own, which all others share; by default half.",
    )
    max_bytes: int | None = Field(
        None, ge=1, description="Instead of copies: as few blocks share as lets the model's weights fit into it."
    )
    samples: int = Field(
        32, ge=1, le=100_000, description="Rows on which the model runs once per pair of alike blocks."
    )
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")
    recovery: RecoverFinetune = Field(
        RecoverFinetune(epochs=3.0),
        description="How long, how fast, and how much the original's outputs count against the labels.",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "CrossLayerShare":
        if self.copies is not None and self.max_bytes is not None:
            raise ValueError("give copies or max_bytes, not both")
        return self

    def required(self) -> tuple[Need, ...]:
        """What its training needs."""
        return self.recovery.required()
