"""Steps that set single weights of networks and bare tensors to zero."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.pruning_schedule import PruningSchedule
from workers.compression.specs.step import Need, Step
from workers.compression.specs.training import TRAINABLE_FORMATS, Globs


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

_CRITERIA = ("sparsity", "threshold", "max_drop")


class WeightPrune(Step):
    """What all of them have in common: how much goes, from where, and in which pattern."""

    formats: ClassVar[tuple[ModelFormat, ...]] = NETWORK_FORMATS
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)

    technique: Literal["prune"] = "prune"
    sparsity: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the selected weights that become zero; 0.5 if nothing else is said."
    )
    max_drop: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Instead of sparsity: the largest tolerated drop of the headline metric, in absolute points for "
        "accuracy, f1, auc and fidelity and relative for the others. The sparsity of each layer is found from "
        "sensitivity curves on selection rows and confirmed on others; scope then does not apply.",
    )
    scope: Literal["global", "layer"] = Field("global", description="Whose least important weights go.")
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")

    @model_validator(mode="before")
    @classmethod
    def _half_unless_said(cls, values: object) -> object:
        if isinstance(values, dict) and all(values.get(name) is None for name in _CRITERIA):
            return {**values, "sparsity": 0.5}
        return values

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        given = [name for name in _CRITERIA if getattr(self, name, None) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
        return self

    def required(self) -> tuple[Need, ...]:
        """A sparsity that is to be found needs rows to choose it by."""
        return self.needs if self.max_drop is None else (*self.needs, "selection")

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors have no outputs whose drop could be measured."""
        if self.max_drop is not None and model_format in TENSOR_FORMATS:
            return f"max_drop is measured on outputs, but a {model_format.value} model cannot be run: give a sparsity."
        return None


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
    schedule: PruningSchedule | None = Field(
        None, description="The model trains while the sparsity is reached; by default all goes at once, untrained."
    )

    @model_validator(mode="after")
    def _schedules_know_where_they_end(self) -> "MagnitudePrune":
        if self.schedule is not None and self.sparsity is None:
            raise ValueError("a schedule goes with sparsity alone")
        return self

    def required(self) -> tuple[Need, ...]:
        """A schedule trains."""
        return (*super().required(), *(self.schedule.recovery.required() if self.schedule else ()))

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors cannot be trained."""
        if self.schedule is not None and model_format not in TRAINABLE_FORMATS:
            return f"schedule trains the model, but a {model_format.value} model cannot be trained: leave it out."
        return super().refusal(model_format)
