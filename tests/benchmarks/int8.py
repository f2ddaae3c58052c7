"""Our 8-bit integers against those of other tools: three networks, the same rows, judged in one process.

    python -m tests.benchmarks.int8 [--only CNN] [--without nncf neural-compressor] [--seeds 3]

Dynamic artifacts are made without any rows. Static ones are made once a seed, by each tool from the same 256
calibration rows; no row is in two seeds. Ours are made twice: as by default, and with the range chosen by the step's
own search (``"range": "auto"``) on labelled rows that nothing is judged by: WordSim-353 for the encoder, which is
judged on SimLex-999 and Lee's documents, and a third of the test images for the digits. Rows, estimators and verdicts
were fixed before anything was judged in this division; figures of other calibration rows on all three sets were known.

The verdict is on means over seeds, against the best peer of each figure. A peer's lead in the task's metric counts if
it is more than the choice of examples makes: 95 % of the lead over examples drawn anew, the same ones for both sides
and for all seeds (paired bootstrap), has to lie above zero.

NNCF runs in an environment of its own and quantizes the ONNX file itself; onnxruntime opens what it makes.
neural-compressor's current release quantizes torch modules only. It runs in its own environment too, on the same
network's torch module and the same batches; its public ``convert`` leaves weights as floats, so its quantizer is asked
for integers itself, and the size is that of the exported program.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime.quantization as ort

from tests.benchmarks.int8_inputs import SEEDS, Case, cases
from tests.benchmarks.peer_environments import PeerUnavailable, prepared
from workers.compression.context import Context
from workers.compression.families.model import Array, Feeds, Model
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.steps.quantize import DynamicQuantize, StaticQuantize
from workers.compression.techniques.quantize.dynamic.onnx import quantize_dynamically
from workers.compression.techniques.quantize.static.onnx import quantize_statically

CALLS = 15
RESAMPLES = 1000
SCRIPTS = Path(__file__).parent / "peer_scripts"
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
    without: tuple[str, ...]

    def __post_init__(self) -> None:
        self.original = self._open(self.case.path)
        self.exact = self.case.answers(self.original)
        self.float_path = self.folder / "float.onnx"
        self.original.save(self.float_path)
        self.made_path = self.folder / "made.onnx"
        self.rows = self.batches(0)
        print(f"{self.case.name:44}{'bytes':>12}{'cosine':>10}{self.case.metric:>10}{'x float':>9}")
        self.show("float", self.original)

    def batches(self, seed: int) -> list[Feeds]:
        """What one seed calibrates on, 8 rows at a time."""
        rows = self.case.calibrations[seed]
        found = rows.batches(self.original.inputs, 8, self.original.tokenizer_file())
        return [dict(batch.feeds) for batch in found]

    def show(self, label: str, model: OnnxModel) -> Result:
        """Judges a model and prints one line."""
        return self.shown(label, model.size_bytes(), self.case.answers(model), f"{self._speed(model):9.2f}")

    def shown(self, label: str, size: int, answers: Array, speed: str = "") -> Result:
        """Judges answers and prints one line."""
        found = Result(size, mean_cosine(self.exact, answers), self.case.score(answers, everything(self.case)), answers)
        print(f"  {label:42}{size:12,}{found.cosine:10.6f}{found.score:10.4f}{speed}", flush=True)
        return found

    def ours(self, step: DynamicQuantize | StaticQuantize, seed: int | None = None) -> Result:
        """Our artifact, saved and opened again."""
        context = Context(
            scratch=self.folder,
            calibration=None if seed is None else self.case.calibrations[seed],
            selection=self.case.selection,
            confirmation=self.case.selection,
        )
        model: Model = open_model(self.case.path, context)
        if isinstance(step, StaticQuantize):
            model = quantize_statically(model, step, context)
        else:
            quantize_dynamically(model, step, context)
        model.save(self.made_path)
        label = f"pressroom {step.method}" + (f", {_range(step, context)}" if isinstance(step, StaticQuantize) else "")
        return self._made(label, self.made_path)

    def dynamic_peers(self) -> dict[str, list[Result]]:
        """onnxruntime's ``quantize_dynamic`` and neural-compressor's dynamic quantization."""
        found = {}
        for label, options in DYNAMIC_PEERS.items():
            ort.quantize_dynamic(self.float_path, self.made_path, **options)
            found[label] = [self._made(label, self.made_path)]
        return found | self._torch_peer("dynamic", 0)

    def static_peers(self, seed: int) -> dict[str, list[Result]]:
        """onnxruntime's ``quantize_static``, NNCF's and neural-compressor's post-training quantization."""
        feeds, label = self.batches(seed), "onnxruntime static, per channel, reduced"
        ort.quantize_static(self.float_path, self.made_path, _Reader(feeds), per_channel=True, reduce_range=True)
        found = {label: [self._made(label, self.made_path)]}
        if "nncf" not in self.without:
            try:
                self._nncf(feeds)
                found["NNCF"] = [self._made("NNCF", self.made_path)]
            except PeerUnavailable as error:
                print(f"  NNCF: {error}")
        return found | self._torch_peer("static", seed)

    def _nncf(self, batches: list[Feeds]) -> None:
        rows = [
            {name: values[row : row + 1] for name, values in feeds.items()}
            for feeds in batches
            for row in range(len(next(iter(feeds.values()))))
        ]
        kind = ("transformer",) if self.case.directory else ()
        feeds = _written(self.folder / "feeds.npz", rows)
        prepared("nncf").run(SCRIPTS / "nncf_int8.py", self.float_path, feeds, self.made_path, *kind)

    def _torch_peer(self, kind: str, seed: int) -> dict[str, list[Result]]:
        """neural-compressor's program of the same network, where that is one that transformers opens."""
        if self.case.directory is None or "neural-compressor" in self.without:
            return {}
        made, answers = self.folder / "made.pt2", self.folder / "answers.npz"
        calibration = _written(self.folder / "feeds.npz", self.batches(seed))
        judged = _written(self.folder / "judged.npz", list(self.case.feeds(self.original)))
        label, script = f"neural-compressor {kind}, torch", SCRIPTS / "neural_compressor_int8.py"
        try:
            environment = prepared("neural-compressor")
            environment.run(script, self.case.directory, kind, calibration, judged, made, answers)
        except PeerUnavailable as error:
            print(f"  {label}: {error}", flush=True)
            return {}
        with np.load(answers) as stored:
            return {label: [self.shown(label, made.stat().st_size, stored["answers"])]}

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
        feeds = self.rows[0]
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


def everything(case: Case) -> Array:
    """Positions of all examples."""
    return np.arange(case.examples)


def _written(path: Path, batches: list[Feeds]) -> Path:
    np.savez(
        path, **{f"{number}/{name}": values for number, feeds in enumerate(batches) for name, values in feeds.items()}
    )
    return path


def _range(step: StaticQuantize, context: Context) -> str:
    """The range of a step, and what was chosen where it is to be."""
    chosen = [change.split()[1] for change in context.changes if change.startswith("range ")]
    return f"{step.range}: {chosen[0]}" if chosen else step.range


def mean(results: list[Result], figure: str) -> float:
    """Of one figure over seeds."""
    return statistics.fmean(getattr(result, figure) for result in results)


def compare_scores(case: Case, ours: list[Result], best: list[Result]) -> str:
    """The verdict on the task's metric, see the module's text; both sides have the same seeds, or only one."""
    lead = mean(ours, "score") - mean(best, "score")
    if lead >= 0.0:
        return "met"

    def score(results: list[Result], rows: Array) -> float:
        return statistics.fmean(case.score(result.answers, rows) for result in results)

    random = np.random.default_rng(0)
    drawn = [random.integers(0, case.examples, case.examples) for _ in range(RESAMPLES)]
    leads = [score(ours, rows) - score(best, rows) for rows in drawn]
    low, high = np.percentile(leads, [2.5, 97.5])
    verdict = "no difference" if low <= 0.0 <= high else "missed"
    return f"{verdict} ({lead:+.4f}, 95 % interval {low:+.4f} to {high:+.4f})"


def print_bar(kind: str, case: Case, ours: list[Result], peers: dict[str, list[Result]]) -> None:
    """Whether ours is as good as the best peer, figure by figure; cosines to four decimals."""
    for label, results in ((f"pressroom {kind}", ours), *peers.items()):
        figures = f"{mean(results, 'size'):12,.0f}{mean(results, 'cosine'):10.6f}{mean(results, 'score'):10.4f}"
        print(f"  mean of {len(results)}: {label:31}{figures}")
    closest = max(peers.values(), key=lambda results: mean(results, "cosine"))
    verdicts = {True: "met", False: "missed"}
    cosine = verdicts[round(mean(ours, "cosine"), 4) >= round(mean(closest, "cosine"), 4)]
    score = compare_scores(case, ours, max(peers.values(), key=lambda results: mean(results, "score")))
    size = verdicts[mean(ours, "size") <= mean(closest, "size")]
    said = f"cosine {cosine}, task metric {score}, size of the closest peer {size}"
    print(f"  bar: {kind} as good as the best peer: {said}", flush=True)


def compare(case: Case, folder: Path, seeds: int, without: tuple[str, ...]) -> None:
    """Prints all artifacts of one case and its bars."""
    comparison = Comparison(case, folder, without)
    print_bar("dynamic", case, [comparison.ours(DynamicQuantize())], comparison.dynamic_peers())
    default: list[Result] = []
    chosen: list[Result] = []
    peers: dict[str, list[Result]] = {}
    for seed in range(seeds):
        print(f"  seed {seed}")
        for label, results in comparison.static_peers(seed).items():
            peers.setdefault(label, []).extend(results)
        default.append(comparison.ours(StaticQuantize(), seed))
        chosen.append(comparison.ours(StaticQuantize(range="auto"), seed))
    for kind, ours in (("static, minmax", default), ("static, auto", chosen)):
        print_bar(kind, case, ours, peers)


def main() -> None:
    """Compares case after case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--without", nargs="*", default=[], choices=("nncf", "neural-compressor"))
    parser.add_argument("--seeds", type=int, default=SEEDS, choices=range(1, SEEDS + 1))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for case in cases(Path(name)):
            if arguments.only in case.name:
                compare(case, Path(name), arguments.seeds, tuple(arguments.without))


if __name__ == "__main__":
    main()
