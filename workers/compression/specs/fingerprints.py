"""Names for rows that are the same in every job that sees them."""

import hashlib
import json

from workers.compression.specs.job import Evaluation
from workers.compression.specs.messages import Data, DatasetFile


def rows_measured_on(data: Data) -> DatasetFile | None:
    """The rows on which sensitivities are measured: those to calibrate or train on, the evaluation's only for want."""
    return data.calibration or data.train or data.evaluation


def fingerprint(data: Data, evaluation: Evaluation, seed: int) -> str | None:
    """SHA-256 over all that says which rows those are, in what order; None for a file whose content is unknown.

    Without data it is that of the inputs made up from ``seed``.
    """
    file = rows_measured_on(data)
    if file is None:
        shapes = {name: list(shape) for name, shape in sorted(evaluation.input_shapes.items())}
        return _digest({"synthetic": seed, "input_shapes": shapes})
    if file.sha256 is None:
        return None
    return _digest({**file.model_dump(mode="json", exclude={"path"}), "seed": seed})


def _digest(facts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
