"""The step that writes a layer as two thinner ones."""

from typing import ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Need, Step
from workers.compression.specs.training import Globs


class SvdLowrank(Step):
    """A linear layer or convolution becomes two in a row, with few values between them.

    Which two lose least on real inputs follows from a singular value decomposition of the weight times a root of the
    inputs' second moments (SVD-LLM, arXiv:2403.07378; convolutions as in arXiv:1511.06067); how many values pass
    between them is chosen for all layers at once, by what each layer's loss does to the model's outputs.
    """

    summary: ClassVar[str] = "Layers become two thinner ones by SVD; ranks chosen under a budget, by their effect"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    needs: ClassVar[tuple[Need, ...]] = ("calibration",)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    default: ClassVar[bool] = True
    size_factors: ClassVar[tuple[float, float, float]] = (0.2, 0.7, 1.0)

    technique: Literal["lowrank"] = "lowrank"
    method: Literal["svd"] = "svd"
    keep: float = Field(
        0.5, gt=0.0, lt=1.0, description="Share of the selected layers' parameters that stays, at most."
    )
    samples: int = Field(128, ge=1, le=100_000, description="Calibration rows that inputs are seen on, at most.")
    sensitivity_samples: int = Field(
        32, ge=1, le=100_000, description="Rows on which the outputs are compared, once for every layer."
    )
    round_to: int = Field(8, ge=1, le=256, description="Ranks are multiples of it, for speed.")
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")
