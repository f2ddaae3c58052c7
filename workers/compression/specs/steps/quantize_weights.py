"""Quantization steps that store weights in few bits and leave activations alone."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.step import Need
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.quantize import QuantizeStep

Bits = Annotated[int, Field(ge=2, le=8)]
GroupSize = Literal[16, 32, 64, 128, 256]


class WeightOnlyQuantize(QuantizeStep):
    """Weights as integers of 2 to 8 bits, computed with in float.

    One exception: ONNX matrices of at least two million values in 4-bit groups multiply packed, by ``MatMulNBits``,
    which rounds activations to 8 bits.

    ``rtn`` rounds to nearest; ``hqq`` goes on from the range and moves zero points and steps to where the error without
    outliers is least (Badri and Shaji 2023); ``gptq`` makes up for the error of each column in the following ones
    (arXiv:2210.17323); ``awq`` chooses each group's range by the error of the layer's outputs, so that columns which
    large activations meet count for more (the idea of arXiv:2306.00978, without scales folded into other layers).
    Tables and layers whose inputs cannot be watched are rounded to nearest by ``gptq`` and ``awq``.
    """

    summary: ClassVar[str] = "Weights as 2- to 8-bit integers in groups, computed with in float"
    formats: ClassVar[tuple[ModelFormat, ...]] = (*NETWORK_FORMATS, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    size_factors: ClassVar[tuple[float, float, float]] = (0.1, 0.16, 1.0)

    method: Literal["weight_only"] = "weight_only"
    algorithm: Literal["rtn", "hqq", "gptq", "awq"] = Field("rtn", description="gptq and awq need calibration data.")
    bits: Bits = 4
    scheme: Literal["affine", "symmetric", "minmax"] = "affine"
    granularity: Literal["tensor", "channel", "group", "block"] = "group"
    group_size: GroupSize = Field(32, description="Inputs per group, or the side of a square block.")
    range: Literal["minmax", "percentile", "entropy", "mse"] = Field(
        "mse", description="How far the integers reach in each group: over all values, or cut where that errs less."
    )
    embeddings: bool = Field(True, description="Whether tables that rows are looked up in are quantized too.")
    samples: int = Field(128, ge=1, le=100_000, description="Calibration rows used at most, by gptq and awq.")

    @model_validator(mode="after")
    def _one_search(self) -> "WeightOnlyQuantize":
        if self.algorithm == "awq" and self.range != "mse":
            raise ValueError("awq searches the ranges itself; leave range at mse")
        return self

    def required(self) -> tuple[Need, ...]:
        """Only algorithms that look at activations need data."""
        return ("calibration",) if self.algorithm in {"gptq", "awq"} else ()

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors have no activations."""
        if model_format in TENSOR_FORMATS and self.required():
            return f"{self.algorithm} watches what enters each layer, but a {model_format.value} model cannot be run."
        return None


class KmeansQuantize(QuantizeStep):
    """Each weight names one of a few values, which lie where the weights are (Deep Compression, arXiv:1510.00149).

    The artifact stays what its format's stock runtime opens: an ONNX file expands itself when it is loaded.
    """

    summary: ClassVar[str] = "Weights as codes into small codebooks found by k-means, trained further if wanted"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    size_factors: ClassVar[tuple[float, float, float]] = (0.05, 0.14, 1.0)

    method: Literal["kmeans"] = "kmeans"
    bits: int = Field(4, ge=1, le=8, description="2 to 256 values to a codebook.")
    granularity: Literal["tensor", "channel", "group"] = Field(
        "tensor", description="One codebook for a tensor, for each output channel, or for each group of channels."
    )
    group_size: int = Field(64, ge=1, le=65_536, description="Most output channels to a codebook.")
    scale_group: Literal[0, 16, 32, 64, 128] = Field(
        0, description="Inputs whose values are multiples of one codebook by a scale of their own; 0: no scales."
    )
    initialization: Literal["kmeans++", "linear"] = "kmeans++"
    sensitivity: Literal["none", "activations"] = Field(
        "none", description="activations: weights that meet large activations count for more; needs calibration data."
    )
    samples: int = Field(128, ge=1, le=100_000, description="Calibration rows used at most.")
    recovery: RecoverFinetune | None = Field(
        None, description="Trains the codebooks' values afterwards, as finetune.recover does; needs training data."
    )

    @model_validator(mode="after")
    def _one_codebook_learns(self) -> "KmeansQuantize":
        if self.recovery is not None and self.granularity != "tensor":
            raise ValueError("recovery trains one codebook per weight: leave granularity at tensor")
        if self.scale_group and (self.recovery is not None or self.granularity != "tensor"):
            raise ValueError("scale_group goes with one codebook per weight and without recovery")
        return self

    def required(self) -> tuple[Need, ...]:
        """Data for what looks at activations and for what trains."""
        calibration: tuple[Need, ...] = ("calibration",) if self.sensitivity == "activations" else ()
        return (*calibration, *(self.recovery.required() if self.recovery else ()))

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors can be neither run nor trained."""
        if model_format in TENSOR_FORMATS and self.required():
            return f"A {model_format.value} model can be neither run nor trained: leave sensitivity and recovery out."
        return None


class MixedQuantize(QuantizeStep):
    """As many bits for each layer as its sensitivity asks for, within a budget for the whole model.

    How much each layer's error at each number of bits moves the outputs is measured on calibration data; the choice
    that is best for the budget is found by integer programming.
    """

    summary: ClassVar[str] = "Bits per layer by measured sensitivity, optimal for a budget of size or error"
    formats: ClassVar[tuple[ModelFormat, ...]] = NETWORK_FORMATS
    needs: ClassVar[tuple[Need, ...]] = ("calibration",)
    size_factors: ClassVar[tuple[float, float, float]] = (0.07, 0.16, 1.0)

    method: Literal["mixed"] = "mixed"
    bits: Annotated[tuple[Bits, ...], Field(min_length=1, max_length=7)] = (2, 3, 4, 6, 8)
    average_bits: float | None = Field(
        None, gt=0.0, le=32.0, description="Bits per weight over all quantized layers, group metadata counted."
    )
    max_error: float | None = Field(
        None, gt=0.0, le=1.0, description="Largest relative squared error of the outputs, as measured (0.01 is 20 dB)."
    )
    algorithm: Literal["rtn", "hqq", "gptq"] = "rtn"
    scheme: Literal["affine", "symmetric"] = "affine"
    group_size: GroupSize = 32
    embeddings: bool = Field(True, description="Whether tables that rows are looked up in are quantized too.")
    samples: int = Field(128, ge=1, le=100_000, description="Calibration rows used at most, by gptq.")
    sensitivity_samples: int = Field(
        32, ge=1, le=100_000, description="Rows on which outputs are compared, for every layer and number of bits."
    )

    @model_validator(mode="before")
    @classmethod
    def _four_bits_unless_said(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("average_bits") is None and values.get("max_error") is None:
            return {**values, "average_bits": 4.5}
        return values

    @model_validator(mode="after")
    def _one_budget(self) -> "MixedQuantize":
        if self.average_bits is not None and self.max_error is not None:
            raise ValueError("give average_bits or max_error, not both")
        return self
