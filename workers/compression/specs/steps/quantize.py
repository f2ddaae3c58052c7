"""Quantization steps whose weights are 8-bit integers or narrower floats."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Glob, Need, Step

Globs = Annotated[tuple[Glob, ...], Field(max_length=1000)]


class QuantizeStep(Step):
    """Fields that every quantization method shares."""

    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)

    technique: Literal["quantize"] = "quantize"
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")


class DynamicQuantize(QuantizeStep):
    """Weights stored as 8-bit integers; no range of an activation has to be known beforehand.

    ONNX matrix products compute on integers, their activations quantized on the fly. The torch formats compute in
    float: their integer kernels on CPUs are many times slower.
    """

    summary: ClassVar[str] = "8-bit weights; ONNX matrix products quantize activations on the fly; needs no data"
    formats: ClassVar[tuple[ModelFormat, ...]] = NETWORK_FORMATS
    default: ClassVar[bool] = True
    size_factors: ClassVar[tuple[float, float, float]] = (0.25, 0.3, 1.0)

    method: Literal["dynamic"] = "dynamic"
    bits: Literal[8] = 8
    scheme: Literal["auto", "affine", "symmetric"] = Field(
        "auto", description="auto picks what this target's instructions compute exactly."
    )
    granularity: Literal["tensor", "channel"] = "channel"


class StaticQuantize(QuantizeStep):
    """Weights and activations as 8-bit integers, activation ranges estimated on calibration data.

    onnxruntime computes on the integers. torch has no integer kernels for CPUs that pay: programs store integer weights
    and round what enters their layers by torch's own operator, but compute in float.
    """

    summary: ClassVar[str] = "8-bit weights and activations, ranges estimated on calibration data"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2)
    needs: ClassVar[tuple[Need, ...]] = ("calibration",)
    size_factors: ClassVar[tuple[float, float, float]] = (0.25, 0.3, 1.0)

    method: Literal["static"] = "static"
    bits: Literal[8] = 8
    granularity: Literal["tensor", "channel"] = "channel"
    range: Literal["minmax", "moving_average", "percentile", "entropy", "mse", "auto"] = Field(
        "minmax",
        description="How the ranges of activations are estimated; auto tries minmax, percentile and mse and keeps "
        "what does best on selection rows by the job's metric, or stays closest where they have no labels.",
    )
    rounding: Literal["adaptive", "nearest"] = Field(
        "adaptive",
        description="adaptive: weights of matrix products round so that outputs on calibration rows move least.",
    )
    bias_correction: bool = Field(True, description="Whether mean errors of outputs go into the layers' biases.")
    samples: int = Field(256, ge=1, le=100_000, description="Calibration rows used at most.")

    def required(self) -> tuple[Need, ...]:
        """A range that is to be chosen needs rows to choose it by."""
        return (*self.needs, "selection") if self.range == "auto" else self.needs


class FloatQuantize(QuantizeStep):
    """Weights as narrower floats, computed with in the model's own type."""

    formats: ClassVar[tuple[ModelFormat, ...]] = (*NETWORK_FORMATS, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    size_factors: ClassVar[tuple[float, float, float]] = (0.5, 0.5, 1.0)


class Float16Quantize(FloatQuantize):
    """Weights stored (and, where the runtime has the kernels, computed) in IEEE half precision."""

    summary: ClassVar[str] = "Weights as 16-bit floats; needs no data"

    method: Literal["float16"] = "float16"


class BFloat16Quantize(FloatQuantize):
    """Weights stored in bfloat16: the range of float32 with 8 bits of precision, so nothing overflows."""

    summary: ClassVar[str] = "Weights as bfloat16; needs no data and never overflows"

    method: Literal["bfloat16"] = "bfloat16"


class Float8Quantize(FloatQuantize):
    """Weights stored as 8-bit floats with a scale per output channel (arXiv:2209.05433)."""

    summary: ClassVar[str] = "Weights as 8-bit floats with scales; needs no data"
    size_factors: ClassVar[tuple[float, float, float]] = (0.25, 0.27, 1.0)

    method: Literal["float8"] = "float8"
    variant: Literal["e4m3", "e5m2"] = Field("e4m3", description="Bits of exponent and mantissa.")
    granularity: Literal["tensor", "channel"] = "channel"
