"""Pruning steps."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Glob, Need, Step

Globs = Annotated[tuple[Glob, ...], Field(max_length=1000)]


class MagnitudePrune(Step):
    """The weights of smallest absolute value become zero (Han et al., arXiv:1506.02626)."""

    summary: ClassVar[str] = "Weights of smallest magnitude become zero, globally or per layer"
    formats: ClassVar[tuple[ModelFormat, ...]] = (
        ModelFormat.ONNX,
        ModelFormat.PT2,
        ModelFormat.HUGGINGFACE,
        ModelFormat.SAFETENSORS,
        ModelFormat.TORCH_STATE_DICT,
    )
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    default: ClassVar[bool] = True

    technique: Literal["prune"] = "prune"
    method: Literal["magnitude"] = "magnitude"
    sparsity: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the selected weights that become zero; 0.5 without a threshold."
    )
    threshold: float | None = Field(
        None, gt=0.0, le=1e30, description="Instead: weights whose absolute value is below it become zero."
    )
    scope: Literal["global", "layer"] = Field("global", description="Whose smallest weights go; of sparsity only.")
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")

    @model_validator(mode="before")
    @classmethod
    def _half_unless_said(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("sparsity") is None and values.get("threshold") is None:
            return {**values, "sparsity": 0.5}
        return values

    @model_validator(mode="after")
    def _one_criterion(self) -> "MagnitudePrune":
        if self.sparsity is not None and self.threshold is not None:
            raise ValueError("give sparsity or threshold, not both")
        return self


class CostComplexityPrune(Step):
    """Subtrees whose impurity gain does not pay for their leaves collapse (minimal cost-complexity, Breiman 1984)."""

    summary: ClassVar[str] = "Collapse subtrees that gain too little impurity for their leaves"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.SKOPS,)
    families: ClassVar[tuple[Family, ...]] = (Family.TREE_ENSEMBLE,)
    size_factors: ClassVar[tuple[float, float, float]] = (0.01, 0.3, 1.0)

    technique: Literal["prune"] = "prune"
    method: Literal["cost_complexity"] = "cost_complexity"
    alpha: float = Field(0.0002, ge=0.0, le=1e6, description="Impurity a leaf must save; larger prunes more.")


class EnsemblePrune(Step):
    """A small weighted subset of an ensemble's trees that predicts like the whole on the user's data."""

    summary: ClassVar[str] = "Keep the trees that together predict like the whole ensemble"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.SKOPS,)
    families: ClassVar[tuple[Family, ...]] = (Family.TREE_ENSEMBLE,)
    needs: ClassVar[tuple[Need, ...]] = ("calibration",)
    size_factors: ClassVar[tuple[float, float, float]] = (0.1, 0.5, 1.0)

    technique: Literal["prune"] = "prune"
    method: Literal["ensemble"] = "ensemble"
    keep: float = Field(0.5, gt=0.0, lt=1.0, description="Share of the trees that stay.")
