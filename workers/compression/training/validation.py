"""How good the weights are on rows that no update sees."""

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch

from workers.compression import scores
from workers.compression.specs.metrics import HIGHER_IS_BETTER
from workers.compression.specs.step import Contract
from workers.compression.training.failures import explaining_calls
from workers.compression.training.objectives import Labelled, Made, Objective, Rows

_METRICS = {**scores.REGRESSION_METRICS, **scores.SIMILARITY_METRICS}


class Verdict(Contract):
    """A pass over the validation rows.

    Args:
        loss: Of the objective.
        metric: What the labels judge by; None without labels.
        value: Its value.
    """

    loss: float
    metric: str | None = None
    value: float | None = None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Greater is better: any metric than none, then the metric, then the lower loss, which is the surer one."""
        if self.metric is None or self.value is None:
            return False, 0.0, -self.loss
        return True, self.value if self.metric in HIGHER_IS_BETTER else -self.value, -self.loss


def judge(rows: Iterable[Rows], make: "Forward", objective: Objective, judged_by: Labelled | None) -> Verdict:
    """One pass without gradients; the network has to be in evaluation mode."""
    loss, count = 0.0, 0
    predictions, targets = [], []
    with torch.no_grad():
        for batch in rows:
            made = make(batch)
            loss += float(objective.loss(made, batch)) * batch.count
            count += batch.count
            if judged_by is not None and batch.targets is not None:
                predictions.append(judged_by.predictions(made, batch).float().cpu().numpy())
                targets.append(batch.targets.cpu().numpy())
    mean = loss / max(count, 1)
    if judged_by is None or not targets:
        return Verdict(loss=mean)
    truth, said = np.concatenate(targets), np.concatenate(predictions).astype(np.float64)
    if judged_by.metric == "accuracy":
        value = float(np.mean(truth == said))
    else:
        value = _METRICS[judged_by.metric](truth.reshape(-1), said.reshape(-1))
    found = judged_by.metric if np.isfinite(value) else None
    return Verdict(loss=mean, metric=found, value=value if found else None)


class Forward:
    """Runs a network on a batch, with its hidden states where they are wanted."""

    def __init__(self, network: torch.nn.Module, via: torch.nn.Module | None = None) -> None:
        self._network = network
        self._via = via

    def __call__(self, rows: Rows) -> Made:
        """What the network makes of the rows."""
        with explaining_calls():
            if self._via is None:
                return Made(tuple(self._network(*rows.inputs)))
            outputs, features = cast(
                "tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]", self._network(*rows.inputs, via=self._via)
            )
            return Made(tuple(outputs), features)
