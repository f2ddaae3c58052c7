"""Steps that set single weights of networks and bare tensors to zero."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from workers.compression.specs.formats import NETWORK_FORMATS, TENSOR_FORMATS, Family, ModelFormat
from workers.compression.specs.pruning_pattern import Groups, parse
from workers.compression.specs.pruning_schedule import PruningSchedule
from workers.compression.specs.step import Need, Step
from workers.compression.specs.training import TRAINABLE_FORMATS, Globs


def _checked(pattern: str) -> str:
    parse(pattern)
    return pattern


Pattern = Annotated[
    str,
    AfterValidator(_checked),
    Field(
        max_length=12,
        description="unstructured; N:M, of M weights next to each other along an output's inputs N stay; or AxB, "
        "blocks of A outputs and B inputs go as a whole.",
    ),
]

_CRITERIA = ("sparsity", "threshold", "max_drop")


def _groups(pattern: object) -> Groups | None:
    """N:M, if it is that; what is no pattern at all is found out elsewhere."""
    try:
        found = parse(pattern) if isinstance(pattern, str) else None
    except ValueError:
        return None
    return found if isinstance(found, Groups) else None


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
    scope: Literal["global", "layer"] = Field(
        "global",
        description="Whose least important weights go: those of all selected weights together, or of each for itself.",
    )
    allocation: Literal["uniform", "erk", "sensitivity"] = Field(
        "uniform",
        description="With scope layer, how much each loses: the same; more the larger it is (Erdos-Renyi kernel); or "
        "what adds up to the least error of the outputs on calibration rows.",
    )
    pattern: Pattern = "unstructured"
    storage: Literal["dense", "sparse"] = Field(
        "dense",
        description="sparse: the ONNX file leaves the zeros out wherever that is smaller and fills them in when it is "
        "loaded, by standard operators; loading takes longer and more memory.",
    )
    include: Globs = Field((), description="Only layers whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never layers whose name matches one of these globs.")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: object) -> object:
        """Half unless said otherwise; N:M says how much, and like an allocation it is about each weight for itself."""
        if not isinstance(values, dict):
            return values
        groups = _groups(values.get("pattern"))
        filled = dict(values)
        if groups is not None or values.get("allocation", "uniform") != "uniform":
            filled.setdefault("scope", "layer")
        if all(values.get(name) is None for name in _CRITERIA):
            filled["sparsity"] = 0.5 if groups is None else groups.sparsity
        return filled

    @model_validator(mode="after")
    def _one_criterion(self) -> Self:
        given = [name for name in _CRITERIA if getattr(self, name, None) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
        return self

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        groups = _groups(self.pattern)
        if groups is not None:
            if self.scope == "global" or self.allocation != "uniform":
                raise ValueError(f"{self.pattern} takes as much of every weight: scope layer, allocation uniform")
            if self.sparsity is None or abs(self.sparsity - groups.sparsity) > 1e-6:
                raise ValueError(f"{self.pattern} is a sparsity of {groups.sparsity:.6g}: leave all others out")
        if self.allocation != "uniform" and (self.scope == "global" or self.sparsity is None):
            raise ValueError("allocation goes with scope layer and a sparsity")
        return self

    def required(self) -> tuple[Need, ...]:
        """A sparsity that is to be found needs rows to choose it by, an allocation by outputs rows to look at."""
        looked_at: tuple[Need, ...] = ("calibration",) if self.allocation == "sensitivity" else ()
        needs = tuple(dict.fromkeys((*self.needs, *looked_at)))
        return needs if self.max_drop is None else (*needs, "selection")

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors have no outputs whose drop could be measured; only ONNX files compute at load."""
        if self.storage == "sparse" and model_format is not ModelFormat.ONNX:
            return f"Only an ONNX file can fill zeros in when it is loaded, a {model_format.value} file cannot."
        if self.max_drop is not None and model_format in TENSOR_FORMATS:
            return f"max_drop is measured on outputs, but a {model_format.value} model cannot be run: give a sparsity."
        if self.allocation == "sensitivity" and model_format in TENSOR_FORMATS:
            return f"allocation sensitivity is measured on outputs, but a {model_format.value} model cannot be run."
        return None


class ScheduledPrune(WeightPrune):
    """What the methods have in common that can go on judging weights while the model trains.

    At every choice weights are judged as they are by then, those that were taken away before by the values that they
    had: they may come back.
    """

    schedule: PruningSchedule | None = Field(
        None, description="The model trains while the sparsity is reached; by default all goes at once, untrained."
    )

    @model_validator(mode="after")
    def _schedules_know_where_they_end(self) -> Self:
        if self.schedule is not None and self.sparsity is None:
            raise ValueError("a schedule goes with sparsity alone")
        if self.schedule is not None and (_groups(self.pattern) or self.allocation == "sensitivity"):
            raise ValueError("a schedule goes with no N:M pattern and no allocation by sensitivity")
        return self

    def required(self) -> tuple[Need, ...]:
        """A schedule trains."""
        return (*super().required(), *(self.schedule.recovery.required() if self.schedule else ()))

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Bare tensors cannot be trained."""
        if self.schedule is not None and model_format not in TRAINABLE_FORMATS:
            return f"schedule trains the model, but a {model_format.value} model cannot be trained: leave it out."
        return super().refusal(model_format)


class MagnitudePrune(ScheduledPrune):
    """The weights of smallest absolute value become zero (Han et al., arXiv:1506.02626)."""

    summary: ClassVar[str] = "Weights of smallest magnitude become zero, globally or per layer"
    formats: ClassVar[tuple[ModelFormat, ...]] = (*NETWORK_FORMATS, *TENSOR_FORMATS)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK, Family.TENSORS)
    default: ClassVar[bool] = True

    method: Literal["magnitude"] = "magnitude"
    threshold: float | None = Field(
        None, gt=0.0, le=1e30, description="Instead of sparsity: weights whose absolute value is below it become zero."
    )

    @model_validator(mode="after")
    def _thresholds_are_of_single_weights(self) -> "MagnitudePrune":
        if self.threshold is not None and self.pattern != "unstructured":
            raise ValueError("a threshold goes with the unstructured pattern")
        return self


class CalibratedPrune(WeightPrune):
    """What the methods that look at data have in common."""

    needs: ClassVar[tuple[Need, ...]] = ("calibration",)

    samples: int = Field(128, ge=1, le=100_000, description="Rows that are looked at.")


class WandaPrune(CalibratedPrune, ScheduledPrune):
    """Weights are judged by |w| times the norm of what enters them, output by output (arXiv:2306.11695)."""

    summary: ClassVar[str] = "Weights that matter least for what enters their layer become zero (Wanda)"

    method: Literal["wanda"] = "wanda"
    scope: Literal["layer"] = Field("layer", description="Scores of different layers cannot be compared.")
    fit: bool = Field(
        False, description="What stays of each output is fitted to the layer's old outputs by least squares."
    )

    @model_validator(mode="after")
    def _training_fits_by_itself(self) -> "WandaPrune":
        if self.schedule is not None and self.fit:
            raise ValueError("a schedule trains what stays: leave fit out")
        return self


class SparseGptPrune(CalibratedPrune):
    """Weights go column by column, and what that does to the layer's outputs is made up for (arXiv:2301.00774).

    There is no schedule: weights go for good, since those that stay are changed to make up for them, which training
    does anyway. What is pruned so can be trained afterwards by ``finetune.recover``.
    """

    summary: ClassVar[str] = "Weights become zero while those that stay make up for them (SparseGPT)"

    method: Literal["sparsegpt"] = "sparsegpt"
    scope: Literal["layer"] = Field("layer", description="Scores of different layers cannot be compared.")
    fit: bool = Field(
        True, description="In the end what stays of each output is fitted to the layer's old outputs by least squares."
    )


class GradientPrune(CalibratedPrune, ScheduledPrune):
    """What the methods that go by gradients have in common."""

    samples: int = Field(512, ge=1, le=100_000, description="Rows that gradients are computed for.")
    loss: Literal["outputs", "labels"] = Field(
        "outputs",
        description="What a weight's cost is counted in: how far outputs move from what they are, or the loss of the "
        "calibration rows' labels. Rows that the model was trained on have hardly any loss left to tell by.",
    )

    def required(self) -> tuple[Need, ...]:
        """Labels where they give the loss."""
        return (*super().required(), *(("labels",) if self.loss == "labels" else ()))


class TaylorPrune(GradientPrune):
    """Weights are judged by |gradient times weight|, the loss that they cost to first order (arXiv:1906.10771)."""

    summary: ClassVar[str] = "Weights that cost the least loss to first order become zero (Taylor)"

    method: Literal["taylor"] = "taylor"


class FisherPrune(GradientPrune):
    """Weights are judged by w² times the mean squared gradient: OBD with the Fisher information (arXiv:1801.05787)."""

    summary: ClassVar[str] = "Weights that cost the least loss to second order become zero (Fisher)"

    method: Literal["fisher"] = "fisher"
