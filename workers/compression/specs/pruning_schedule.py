"""When a pruning that trains takes its weights away: little by little, or in rounds that rewind."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from workers.compression.specs.step import Contract
from workers.compression.specs.steps.finetune import RecoverFinetune


class Schedule(Contract):
    """What all have in common: the training that weights go in."""

    recovery: RecoverFinetune = Field(
        RecoverFinetune(epochs=3.0),
        description="How long, how fast, and how much the original's outputs count against the labels. The best "
        "weights are chosen among those after the last one has gone.",
    )


class GradualSchedule(Schedule):
    """Sparsity rises to its final value while the model trains, fast at first (Zhu and Gupta, arXiv:1710.01878).

    Until then a weight that was taken away comes back where others come to matter less than it would; afterwards what
    is left trains on.
    """

    kind: Literal["gradual"] = "gradual"
    start: float = Field(0.0, ge=0.0, lt=1.0, description="Share of the training after which pruning begins.")
    end: float = Field(0.5, gt=0.0, lt=1.0, description="Share of the training after which the sparsity is reached.")
    every: int = Field(
        50,
        ge=1,
        le=1_000_000,
        description="Updates between two choices of the weights that go; each looks at a method's samples anew.",
    )

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> "GradualSchedule":
        if self.start >= self.end:
            raise ValueError("start has to be smaller than end")
        return self


class RewindSchedule(Schedule):
    """Rounds that each take the same share of what is left and train anew through the whole course of the rate.

    ``rate`` keeps trained values and rewinds the learning rate alone (Renda et al., arXiv:2003.02389). ``values`` also
    sets what is left, biases included, back to the uploaded model's values: a lottery ticket of that model (Frankle and
    Carbin, arXiv:1803.03635; what it was initialized with, no service knows).
    """

    kind: Literal["rewind"] = "rewind"
    rounds: int = Field(5, ge=1, le=100, description="Each is a training as long as recovery says.")
    to: Literal["rate", "values"] = "rate"


PruningSchedule = Annotated[GradualSchedule | RewindSchedule, Field(discriminator="kind")]
