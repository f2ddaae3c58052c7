"""Deep Compression's own table by a job of the service: LeNet-300-100 and LeNet-5 on all 10,000 test rows of MNIST.

    python -m tests.benchmarks.deep_compression [--only NAME] [--seeds 3]

Float networks, trained on MNIST's 60,000 rows anew for each seed, are uploaded with those rows to train on, each also
once moved by up to a pixel; the 10,000 rows to judge by are as they are. One job takes whole units out of each network
and then single weights, clusters and archives it. Bytes are those of the files that it hands out, everything in them
counted, against four bytes per parameter of the network as uploaded. Errors are onnxruntime's on the downloaded
artifact.

How many units and weights go, and in how many epochs, was chosen on the last 10,000 training rows, with one float
network of each kind trained on the others. Rates, bits, batch size and the moved rows were kept from earlier recipes,
which had been tried on test rows with the first seed.

Published: S. Han et al., arXiv:1510.00149, table 1, and the later re-do as D. Molchanov et al., arXiv:1701.05369, quote
it.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from tests.benchmarks.deep_compression_inputs import TRAININGS, float_network, parameters, write_shifted_digits
from tests.benchmarks.training_inputs import mnist, write_digits
from tests.benchmarks.training_runs import verdict
from tests.live import LiveService

JOB_SECONDS = 6 * 3600
MOST_LOST = 0.15
"""Points of error on the mean of the seeds."""
EXPANDING_RATIO = 25.0
_STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % for the mean of so many differences."""


@dataclass(frozen=True)
class Contest:
    """A network and what it is measured against.

    Args:
        units: Share of its channels and neurons that go as a whole, before anything else.
        sparsity: Of the weights that are left then.
        epochs: Of gradual pruning.
        tuning: Epochs in which codebooks learn.
        ratio: The bar.
        most_float_error: What its float networks have to reach themselves, in percent.
        published: Ratio and errors before and after, of the paper and of the later re-do.
    """

    units: float
    sparsity: float
    epochs: float
    tuning: float
    ratio: float
    most_float_error: float
    published: tuple[str, str]

    def recipe(self) -> list[Mapping[str, Any]]:
        """The steps of the job."""
        training = {"batch_size": 128, "weight_decay": 0.0, "validation": 0.0}
        pruning = training | {"epochs": self.epochs, "learning_rate": 2e-3}
        tuning = training | {"epochs": self.tuning, "learning_rate": 1e-3}
        return [
            {"technique": "prune", "method": "structured", "sparsity": self.units, "round_to": 1, "least": 0.0},
            {
                "technique": "prune",
                "method": "magnitude",
                "sparsity": self.sparsity,
                "schedule": {"kind": "gradual", "recovery": pruning},
            },
            {"technique": "quantize", "method": "kmeans", "bits": 3, "recovery": tuning},
        ]


CONTESTS = {
    "LeNet-300-100": Contest(0.4, 0.905, 12, 2, 65.0, 1.64, ("40x, 1.64 to 1.58 %", "48x, 2.0 to 1.8 %")),
    "LeNet-5": Contest(0.55, 0.89, 6, 1, 120.0, 0.85, ("39x, 0.80 to 0.74 %", "46x, 0.83 to 0.74 %")),
}


@dataclass(frozen=True)
class Outcome:
    """One seed.

    Args:
        before: Error of the float network in percent.
        after: Error of the artifact.
        archive: Bytes.
        expanding: Bytes of the ONNX file that runs as it is.
    """

    before: float
    after: float
    archive: int
    expanding: int


def error(path: Path) -> float:
    """Percent of the test rows that stock onnxruntime gets wrong with a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    images, digits = mnist("t10k")
    guesses = [session.run(None, {"input": part})[0].argmax(axis=1) for part in np.array_split(images, 20)]
    return 100 * float(np.mean(np.concatenate(guesses) != digits))


def compete(service: LiveService, name: str, seed: int, data: Mapping[str, str], folder: Path) -> Outcome:
    """Uploads the float network of a seed, has it compressed, and measures what comes back."""
    network = float_network(name, seed)
    request = {
        "model": service.ready("model", network)["id"],
        "recipe": CONTESTS[name].recipe(),
        "data": data,
        "outputs": ["archive"],
        "seed": seed,
        "execution": {"timeout_seconds": JOB_SECONDS},
    }
    answer = service.client.post("/v1/jobs", json=request)
    if answer.is_error:
        raise SystemExit(answer.text)
    job = service.finished(answer.json()["id"], JOB_SECONDS)
    if job["status"] != "succeeded":
        raise SystemExit(str(job["error"]))
    folder.mkdir()
    artifact = service.artifact(job, folder)
    archive = service.artifact(job, folder, "archive")
    return Outcome(error(network), error(artifact), archive.stat().st_size, artifact.stat().st_size)


def report(name: str, outcomes: Sequence[Outcome]) -> bool:
    """Prints the means beside what was published; whether all bars hold."""
    contest, floats = CONTESTS[name], 4 * parameters(name)
    lost = [outcome.after - outcome.before for outcome in outcomes]
    ratio = floats / statistics.mean(outcome.archive for outcome in outcomes)
    expanding = floats / statistics.mean(outcome.expanding for outcome in outcomes)
    before = statistics.mean(outcome.before for outcome in outcomes)
    after = statistics.mean(outcome.after for outcome in outcomes)
    print(
        f"{name}, mean of {len(outcomes)}: archive {ratio:.1f}x, self-expanding ONNX {expanding:.1f}x, "
        f"error {before:.2f} to {after:.2f} %, difference {statistics.mean(lost):+.3f}{_interval(lost)}"
    )
    print(f"  published: {contest.published[0]}; later re-do: {contest.published[1]}")
    bars = {
        f"archive at least {contest.ratio:g}x": ratio >= contest.ratio,
        f"mean error at most {MOST_LOST} points above float": statistics.mean(lost) <= MOST_LOST,
        f"float error at most {contest.most_float_error} %": before <= contest.most_float_error,
        f"self-expanding ONNX at least {EXPANDING_RATIO:g}x": expanding >= EXPANDING_RATIO,
    }
    for text, held in bars.items():
        print(f"  bar: {text}: {verdict(held)}")
    return all(bars.values())


def _interval(lost: Sequence[float]) -> str:
    if len(lost) not in _STUDENT_T:
        return ""
    half = _STUDENT_T[len(lost)] * statistics.stdev(lost) / math.sqrt(len(lost))
    mean = statistics.mean(lost)
    return f" (95 % of the mean, paired by seed: {mean - half:+.2f} to {mean + half:+.2f})"


def main() -> int:
    """Prints a line per seed and the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a network's name")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    held = True
    with tempfile.TemporaryDirectory(prefix="pressroom-bench-") as made:
        folder = Path(made)
        rows = write_shifted_digits(folder / "train.npz"), write_digits(folder, train_rows=1).test
        with LiveService(folder / "data") as service:
            train, test = (service.ready("dataset", path)["id"] for path in rows)
            for name in TRAININGS:
                if arguments.only not in name:
                    continue
                outcomes = []
                for seed in range(arguments.seeds):
                    data = {"train": train, "evaluation": test}
                    outcome = compete(service, name, seed, data, folder / f"{name}-{seed}")
                    outcomes.append(outcome)
                    floats = 4 * parameters(name)
                    print(
                        f"{name}, seed {seed}: archive {outcome.archive:,} bytes ({floats / outcome.archive:.1f}x), "
                        f"ONNX {outcome.expanding:,} ({floats / outcome.expanding:.1f}x), "
                        f"error {outcome.before:.2f} to {outcome.after:.2f} %",
                        flush=True,
                    )
                held &= report(name, outcomes)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
