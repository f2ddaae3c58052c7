"""How much each weight's quantization alone moves a model's outputs: what is measured, and how it is kept for reuse."""

from typing import Annotated, Literal

from pydantic import Field

from workers.compression.specs.metrics import Count, Finite, Layer, Positive
from workers.compression.specs.step import Contract, Glob

Bits = Annotated[int, Field(ge=2, le=8)]
GroupSize = Literal[16, 32, 64, 128, 256]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TensorName = Annotated[str, Field(max_length=4000)]

REFERENCE_BITS = 4
"""Of a layer's errors the one at this many bits ranks it, where it was measured."""


class SensitivityOptions(Contract):
    """Which weights are quantized how, one at a time, and on how many rows the outputs are compared."""

    include: Annotated[tuple[Glob, ...], Field(max_length=1000)] = Field(
        (), description="Only layers whose name matches one of these globs."
    )
    exclude: Annotated[tuple[Glob, ...], Field(max_length=1000)] = Field(
        (), description="Never layers whose name matches one of these globs."
    )
    bits: Annotated[tuple[Bits, ...], Field(min_length=1, max_length=7)] = (2, 3, 4, 6, 8)
    algorithm: Literal["rtn", "hqq", "gptq"] = "rtn"
    scheme: Literal["affine", "symmetric"] = "affine"
    group_size: GroupSize = 32
    embeddings: bool = Field(True, description="Whether tables that rows are looked up in are quantized too.")
    samples: int = Field(128, ge=1, le=100_000, description="Rows used at most by algorithms that watch activations.")
    sensitivity_samples: int = Field(
        32, ge=1, le=100_000, description="Rows on which outputs are compared, for every layer and number of bits."
    )


class Measurement(Contract):
    """What sensitivities hold for; they are reused where all of this is the same.

    ``model`` and ``data`` are None where their content is not known, or is not what was uploaded any more.
    """

    version: Literal[1] = 1
    model: Sha256 | None
    data: Sha256 | None = Field(
        description="Fingerprint of the rows: file, fields, part and seeds, or of made-up inputs."
    )
    synthetic: bool = False
    rows: Count = Field(description="Rows asked for.")
    algorithm: Annotated[str, Field(max_length=32)]
    scheme: Annotated[str, Field(max_length=32)]
    group_size: Count
    samples: Count = Field(0, description="Rows whose activations were watched; 0 where the algorithm watches none.")


class MeasuredOption(Contract):
    """One weight at one number of bits, all others as they are.

    ``error`` is the squared error of the outputs over their squares; ``loss`` that of the task, where there are labels.
    """

    bits: Bits
    error: Positive
    loss: Finite | None = None


class WeightSensitivity(Contract):
    """What was measured of one weight, fewest bits first."""

    name: TensorName
    layer: TensorName
    parameters: Count
    options: Annotated[tuple[MeasuredOption, ...], Field(min_length=1, max_length=7)]

    def at(self, bits: int) -> MeasuredOption | None:
        """The option of that many bits."""
        return next((option for option in self.options if option.bits == bits), None)

    @property
    def reference(self) -> MeasuredOption:
        """The option by which the weight is ranked: at ``REFERENCE_BITS``, else at the fewest."""
        return self.at(REFERENCE_BITS) or self.options[0]

    def merged(self, other: "WeightSensitivity") -> "WeightSensitivity":
        """With the options that only ``other`` has."""
        known = {option.bits: option for option in (*other.options, *self.options)}
        return self.model_copy(update={"options": tuple(known[bits] for bits in sorted(known))})


class SensitivityMap(Contract):
    """The sensitivities of a model's weights."""

    measured: Measurement
    rows: Count = Field(description="Rows used; fewer than asked for where the data or memory gave out.")
    loss: Finite | None = Field(None, description="Of the unchanged model.")
    weights: Annotated[tuple[WeightSensitivity, ...], Field(max_length=20_000)] = ()

    def merged(self, other: "SensitivityMap") -> "SensitivityMap":
        """With what only ``other`` holds of the same measurement."""
        theirs = {weight.name: weight for weight in other.weights}
        mine = [w.merged(theirs[w.name]) if w.name in theirs else w for w in self.weights]
        names = {weight.name for weight in mine}
        return self.model_copy(update={"weights": (*mine, *(w for w in other.weights if w.name not in names))})

    def of(self, name: str) -> dict[int, MeasuredOption]:
        """What was measured of a weight, by the number of bits."""
        return next(({o.bits: o for o in weight.options} for weight in self.weights if weight.name == name), {})

    def by_layer(self) -> dict[str, float]:
        """The error by which each layer is ranked, that of its weights added up."""
        errors: dict[str, float] = {}
        for weight in self.weights:
            errors[weight.layer] = errors.get(weight.layer, 0.0) + weight.reference.error
        return errors

    def filled_in(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        """``layers`` with the sensitivity of those that the map knows."""
        known = self.by_layer()
        return tuple(layer.model_copy(update={"sensitivity": known.get(layer.name)}) for layer in layers)
