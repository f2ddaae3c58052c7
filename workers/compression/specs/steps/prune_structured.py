"""The step that takes whole channels out of networks."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.step import Need, Step
from workers.compression.specs.training import Globs

Kind = Literal["channels", "neurons", "heads"]

_TARGETS = ("macs", "sparsity", "max_drop")


class StructuredPrune(Step):
    """Channels of convolutions, neurons of linear layers and heads of attention go, with all that makes and reads them.

    What has to go together follows from the graph (DepGraph, arXiv:2301.12900); the artifact is an ordinary, smaller
    model. Weights that read channels are fitted anew to calibration data, so that what stays makes up for what goes.
    """

    summary: ClassVar[str] = "Whole channels, neurons and attention heads go: a smaller dense model, faster everywhere"
    formats: ClassVar[tuple[ModelFormat, ...]] = (ModelFormat.ONNX, ModelFormat.PT2, ModelFormat.HUGGINGFACE)
    families: ClassVar[tuple[Family, ...]] = (Family.NEURAL_NETWORK,)
    needs: ClassVar[tuple[Need, ...]] = ("calibration",)
    conflicts: ClassVar[tuple[str, ...]] = ("quantize",)
    size_factors: ClassVar[tuple[float, float, float]] = (0.2, 0.65, 1.0)

    technique: Literal["prune"] = "prune"
    method: Literal["structured"] = "structured"
    macs: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the multiply-accumulates that goes; 0.4 if nothing else is said."
    )
    sparsity: float | None = Field(None, gt=0.0, lt=1.0, description="Instead of macs: share of the units that goes.")
    max_drop: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Instead of macs: the largest tolerated drop of the headline metric, in absolute points for "
        "accuracy, f1, auc and fidelity and relative for the others. How many units go is found on selection rows and "
        "confirmed on others.",
    )
    importance: Literal["magnitude", "activations", "taylor"] = Field(
        "activations",
        description="By the norm of the weights that make and read a unit, by what it adds to the layers after it, or "
        "by how much the loss would change without it to first order (arXiv:1906.10771).",
    )
    loss: Literal["outputs", "labels"] = Field(
        "outputs",
        description="What taylor counts in: how far outputs move from what they are, or the loss of the calibration "
        "rows' labels.",
    )
    compensate: bool = Field(True, description="Fit the weights that read channels to what stays, by least squares.")
    scope: Literal["global", "layer"] = Field(
        "global",
        description="Least important in the network, or of each layer. Of Hugging Face models neurons go, as many of "
        "each layer, for config.json has one width for all.",
    )
    what: Annotated[tuple[Kind, ...], Field(min_length=1, max_length=3)] = ("channels", "neurons", "heads")
    include: Globs = Field((), description="Only channels that layers make whose name matches one of these globs.")
    exclude: Globs = Field((), description="Never channels that layers make whose name matches one of these globs.")
    round_to: int = Field(8, ge=1, le=256, description="Channels stay in multiples of it, for speed.")
    least: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the units of a layer that stays in any case.")
    samples: int = Field(128, ge=1, le=100_000, description="Calibration rows used at most.")

    @model_validator(mode="before")
    @classmethod
    def _some_macs_unless_said(cls, values: object) -> object:
        if isinstance(values, dict) and all(values.get(name) is None for name in _TARGETS):
            return {**values, "macs": 0.4}
        return values

    @model_validator(mode="after")
    def _one_target(self) -> "StructuredPrune":
        if sum(getattr(self, name) is not None for name in _TARGETS) > 1:
            raise ValueError(f"give one of {', '.join(_TARGETS)}")
        return self

    @model_validator(mode="after")
    def _loss_is_looked_at(self) -> "StructuredPrune":
        if self.loss == "labels" and self.importance != "taylor":
            raise ValueError('loss goes with "importance": "taylor"')
        return self

    def refusal(self, model_format: ModelFormat) -> str | None:
        """A transformer's heads have the size that its hidden state leaves for each."""
        if model_format is ModelFormat.HUGGINGFACE and "neurons" not in self.what:
            return "config.json gives one number of heads for all layers and takes their size from it; only neurons go"
        return None

    def required(self) -> tuple[Need, ...]:
        """Norms of weights need no data; fitting does, and so does finding out how much may go."""
        watched: tuple[Need, ...] = ("calibration",) if self.compensate or self.importance != "magnitude" else ()
        watched += ("labels",) if self.loss == "labels" else ()
        return watched if self.max_drop is None else (*watched, "selection")
