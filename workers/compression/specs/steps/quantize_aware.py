"""Training with the quantized representation."""

from typing import ClassVar, Literal

from pydantic import Field

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Need
from workers.compression.specs.steps.quantize import QuantizeStep
from workers.compression.specs.steps.quantize_weights import Bits
from workers.compression.specs.training import SupervisedStep


class QatQuantize(QuantizeStep, SupervisedStep):
    """The network trains while its weights and activations are rounded, and learns the step sizes too.

    Gradients pass the rounding straight through, step sizes learn as in LSQ (arXiv:1902.08153); what comes out are
    integers whose answers are those of the network that was trained.
    """

    summary: ClassVar[str] = "Train with rounded weights and activations, learn their ranges, store real integers"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    needs: ClassVar[tuple[Need, ...]] = ("train",)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    compresses: ClassVar[bool] = True
    size_factors: ClassVar[tuple[float, float, float]] = (0.12, 0.25, 1.0)

    method: Literal["qat"] = "qat"
    bits: Bits = Field(8, description="Of the weights.")
    activation_bits: Bits | None = Field(8, description="Of what enters each layer; null: activations stay floats.")
    granularity: Literal["tensor", "channel"] = "channel"
    teacher: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Weight of the original's outputs against the labels; without labels they are all there is.",
    )
