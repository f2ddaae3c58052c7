"""Our 8-bit integers against onnxruntime's and NNCF's: three networks, the same rows, judged in one process.

    python -m tests.benchmarks.int8 [--only CNN] [--without-nncf]

Dynamic artifacts are made without any rows, static ones from the same 256. NNCF runs in an environment of its own and
quantizes the ONNX file itself; all artifacts are opened by onnxruntime. neural-compressor's current release quantizes
torch modules only, so it makes no artifact that could stand beside these.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime.quantization as ort

from tests.benchmarks.int8_inputs import Case, cases
from tests.benchmarks.peer_environments import PeerUnavailable, prepared
from workers.compression.context import Context
from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.steps.quantize import DynamicQuantize, StaticQuantize
from workers.compression.techniques.quantize.dynamic.onnx import quantize_dynamically
from workers.compression.techniques.quantize.static.onnx import quantize_statically

CALLS = 15
RESAMPLES = 1000
RANGES: tuple[Literal["minmax", "percentile"], ...] = ("minmax", "percentile")
"""minmax stays closest to the float model; cut ranges, as NNCF's are, can suit a task better than its floats do."""
DYNAMIC_PEERS: dict[str, dict[str, object]] = {
    "onnxruntime dynamic, per channel, reduced": {"per_channel": True, "reduce_range": True},
    "onnxruntime dynamic, per channel, uint8": {"per_channel": True, "weight_type": ort.QuantType.QUInt8},
}


@dataclass(frozen=True)
class Result:
    """What an artifact reached."""

    size: int
    cosine: float
    score: float
    answers: Array


class _Reader(ort.CalibrationDataReader):
    def __init__(self, feeds: list[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feeds | None:
        """The next batch, None at the end."""
        return next(self._left, None)


@dataclass
class Comparison:
    """Judges artifacts of one case."""

    case: Case
    folder: Path

    def __post_init__(self) -> None:
        self.original = self._open(self.case.path)
        self.exact = self.case.answers(self.original)
        self.float_path = self.folder / "float.onnx"
        self.original.save(self.float_path)
        tokenizer = self.original.tokenizer_file()
        batches = self.case.calibration.batches(self.original.inputs, 8, tokenizer)
        self.feeds: list[Feeds] = [dict(batch.feeds) for batch in batches]
        print(f"{self.case.name:44}{'bytes':>12}{'cosine':>10}{self.case.metric:>10}{'x float':>9}")
        self.show("float", self.original)

    def show(self, label: str, model: OnnxModel) -> Result:
        """Prints one line."""
        answers = self.case.answers(model)
        score = self.case.score(answers, np.arange(self.case.examples))
        found = Result(model.size_bytes(), mean_cosine(self.exact, answers), score, answers)
        speed = self._speed(model)
        print(f"  {label:42}{found.size:12,}{found.cosine:10.6f}{found.score:10.4f}{speed:9.2f}", flush=True)
        return found

    def ours(self, step: DynamicQuantize | StaticQuantize) -> Result:
        """Our artifact, saved and opened again."""
        static = isinstance(step, StaticQuantize)
        context = Context(scratch=self.folder, calibration=self.case.calibration if static else None)
        model = open_model(self.case.path, context)
        if isinstance(step, StaticQuantize):
            quantize_statically(model, step, context)
        else:
            quantize_dynamically(model, step, context)
        model.save(self.folder / "ours.onnx")
        return self._made(f"pressroom {step.method}{f', {step.range}' if static else ''}", self.folder / "ours.onnx")

    def dynamic_peers(self) -> list[Result]:
        """onnxruntime's ``quantize_dynamic``."""
        found = []
        for label, options in DYNAMIC_PEERS.items():
            ort.quantize_dynamic(self.float_path, self.folder / "peer.onnx", **options)
            found.append(self._made(label, self.folder / "peer.onnx"))
        return found

    def static_peers(self, *, with_nncf: bool) -> list[Result]:
        """onnxruntime's ``quantize_static`` and NNCF's post-training quantization."""
        made = self.folder / "peer.onnx"
        ort.quantize_static(self.float_path, made, _Reader(self.feeds), per_channel=True, reduce_range=True)
        found = [self._made("onnxruntime static, per channel, reduced", made)]
        if with_nncf:
            try:
                self._nncf(made)
                found.append(self._made("NNCF", made))
            except PeerUnavailable as error:
                print(f"  NNCF: {error}")
        return found

    def _nncf(self, made: Path) -> None:
        rows = [
            {name: values[row : row + 1] for name, values in feeds.items()}
            for feeds in self.feeds
            for row in range(len(next(iter(feeds.values()))))
        ]
        arrays = {f"{number}/{name}": values for number, row in enumerate(rows) for name, values in row.items()}
        np.savez(self.folder / "feeds.npz", **arrays)
        kind = ("transformer",) if self.case.is_transformer else ()
        script = Path(__file__).parent / "peer_scripts" / "nncf_int8.py"
        prepared("nncf").run(script, self.float_path, self.folder / "feeds.npz", made, *kind)

    def _made(self, label: str, path: Path) -> Result:
        model = self._open(path)
        model._tokenizer = self.original.tokenizer_file()
        return self.show(label, model)

    def _open(self, path: Path) -> OnnxModel:
        model = open_model(path, Context(scratch=self.folder))
        if not isinstance(model, OnnxModel):
            raise TypeError(path)
        return model

    def _speed(self, model: OnnxModel) -> float:
        """Median over interleaved calls of how much faster the artifact is than the original."""
        feeds = self.feeds[0]
        ratios = []
        for call in range(CALLS + 3):
            seconds = []
            for side in (self.original, model):
                started = time.perf_counter()
                side.run(feeds)
                seconds.append(time.perf_counter() - started)
            if call >= 3:
                ratios.append(seconds[0] / seconds[1])
        return statistics.median(ratios)


def mean_cosine(left: Array, right: Array) -> float:
    """Mean over rows."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.mean((left * right).sum(axis=1) / lengths))


def compare_scores(case: Case, ours: Result, best: Result) -> str:
    """The verdict on the task's metric; a lead of the peer counts if it is more than the choice of examples makes.

    The 95 % interval is that of the difference over examples drawn anew, the same for both (paired bootstrap).
    """
    if ours.score >= best.score:
        return "met"
    random = np.random.default_rng(0)
    drawn = [random.integers(0, case.examples, case.examples) for _ in range(RESAMPLES)]
    leads = [case.score(ours.answers, rows) - case.score(best.answers, rows) for rows in drawn]
    low, high = np.percentile(leads, [2.5, 97.5])
    verdict = "no difference" if low <= 0.0 <= high else "missed"
    return f"{verdict} ({ours.score - best.score:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"


def print_bar(kind: str, case: Case, ours: Result, peers: list[Result]) -> None:
    """Whether ours is as good as the best peer, figure by figure; cosines to four decimals."""
    closest = max(peers, key=lambda peer: peer.cosine)
    verdicts = {True: "met", False: "missed"}
    cosine = verdicts[round(ours.cosine, 4) >= round(closest.cosine, 4)]
    score = compare_scores(case, ours, max(peers, key=lambda peer: peer.score))
    size = verdicts[ours.size <= closest.size]
    said = f"cosine {cosine}, task metric {score}, size of the closest peer {size}"
    print(f"  bar: {kind} as good as the best peer: {said}", flush=True)


def main() -> None:
    """Compares case after case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--without-nncf", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for case in cases(Path(name)):
            if arguments.only in case.name:
                comparison = Comparison(case, Path(name))
                print_bar("dynamic", case, comparison.ours(DynamicQuantize()), comparison.dynamic_peers())
                made = {ranges: comparison.ours(StaticQuantize(range=ranges)) for ranges in RANGES}
                peers = comparison.static_peers(with_nncf=not arguments.without_nncf)
                for ranges, static in made.items():
                    print_bar(f"static, {ranges}", case, static, peers)


if __name__ == "__main__":
    main()
