"""Steps that set single weights of networks and bare tensors to zero."""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Step
from workers.compression.specs.training import Globs


def _pattern(value: str) -> str:
    if value == "unstructured":
        return value
    if found := re.fullmatch(r"([1-9]\d?):([1-9]\d?)", value):
        if int(found[1]) < int(found[2]):
            return value
    elif re.fullmatch(r"[1-9]\d?x[1-9]\d?", value):
        return value
    raise ValueError("unstructured, N:M such as 2:4 (N of M in a row stay, N < M), or a block such as 4x1 or 8x8")


Pattern = Annotated[
    str,
    AfterValidator(_pattern),
    Field(
        max_length=12,
        description="unstructured; N:M, of M weights next to each other along an output's inputs N stay; or AxB, "
        "blocks of A outputs and B inputs go as a whole.",
    ),
]


class WeightPrune(Step):
    """What all of them have in common: how much goes, from where, and in which pattern."""

    formats: ClassVar[tuple[ModelFormat, ...]] = NETWORK_FORMATS
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)

    technique: Literal["prune"] = "prune"
    sparsity: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the selected weights that become zero; 0.5 if nothing else is said."
    )
    scope: Literal["global", "layer"] = Field("global", description="Whose least important weights go.")
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")


class MagnitudePrune(WeightPrune):
    """The weights of smallest absolute value become zero (Han et al., arXiv:1506.02626)."""

    summary: ClassVar[str] = "Weights of smallest magnitude become zero, globally or per layer"
    formats: ClassVar[tuple[ModelFormat, ...]] = (*NETWORK_FORMATS, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    default: ClassVar[bool] = True

    method: Literal["magnitude"] = "magnitude"
    threshold: float | None = Field(
        None, gt=0.0, le=1e30, description="Instead of sparsity: weights whose absolute value is below it become zero."
    )

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
