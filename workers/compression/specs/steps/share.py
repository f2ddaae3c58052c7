"""Steps that store once what stands in a model several times."""

from typing import ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Step


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
