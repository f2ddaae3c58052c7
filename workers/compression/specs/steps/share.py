"""Steps that store once what stands in a model several times."""

from typing import ClassVar, Literal

from workers.compression.specs.formats import TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Step


class TieShare(Step):
    """Tensors with the same type, shape and values are stored once; nothing else changes, to the last bit."""

    summary: ClassVar[str] = "Store identical tensors once; outputs stay bit-identical"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    default: ClassVar[bool] = True
    size_factors: ClassVar[tuple[float, float, float]] = (0.3, 0.9, 1.0)

    technique: Literal["share"] = "share"
    method: Literal["tie"] = "tie"
