"""Pruning steps of trees and ensembles."""

from typing import ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Need, Step


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
