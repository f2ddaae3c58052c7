"""Bits by sensitivity against the same number of bits everywhere: one model, the same rows, the same average.

    python -m tests.benchmarks.sensitivity [--algorithm rtn --samples 32]

Sensitivities are measured once per model; uniform and mixed go through the same code, with the same groups, and are
judged on rows that were not calibrated on. Bits per weight count scales and zero points.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import trained
from tests.benchmarks import inputs
from workers.compression.context import Context
from workers.compression.data import open_dataset
from workers.compression.engine import perform
from workers.compression.evaluation import judge
from workers.compression.families.weights import as_compressible
from workers.compression.registry import family
from workers.compression.sensitivity.measuring import candidates, quantized
from workers.compression.specs.containers.sniffing import sniff_dataset, sniff_model
from workers.compression.specs.messages import (
    Analyze,
    Analyzed,
    Compress,
    Compressed,
    Data,
    DatasetFile,
    InspectModel,
    ModelFile,
    ModelInspection,
)
from workers.compression.specs.sensitivity import SensitivityMap, SensitivityOptions
from workers.compression.specs.steps.quantize_weights import MixedQuantize

MODEL, ROWS = "a" * 64, "b" * 64
CALIBRATED = 0.2
UNIFORM_BITS = (2, 3, 4)


@dataclass(frozen=True)
class Case:
    """A model and labelled rows."""

    name: str
    write_model: Callable[[Path], Path]
    write_data: Callable[[Path], Path]
    metric: str


CASES = (
    Case("all-MiniLM-L6-v2, ONNX, on WordSim-353", inputs.minilm_onnx, inputs.word_pairs, "spearman"),
    Case(
        "CNN on digits, ONNX",
        lambda folder: trained.write_onnx("cnn", folder / "cnn.onnx"),
        lambda folder: trained.write_npz("cnn", folder / "digits.npz"),
        "accuracy",
    ),
)


@dataclass(frozen=True)
class Made:
    """What one choice of bits leads to."""

    size_bytes: int
    cosine: float
    sqnr_db: float
    value: float
    words: str


class Bench:
    """One case, opened."""

    def __init__(self, case: Case, options: SensitivityOptions, folder: Path) -> None:
        self._case = case
        self._options = options
        self._folder = folder
        path = case.write_model(folder)
        context = Context(scratch=folder)
        inspection = perform(InspectModel(path=str(path), filename=path.name), folder, context)
        assert isinstance(inspection, ModelInspection)
        clean = folder / inspection.clean if inspection.clean else path
        self.file = ModelFile(path=str(clean), format=sniff_model(clean), sha256=MODEL)
        data = case.write_data(folder)
        rows = DatasetFile(path=str(data), format=sniff_dataset(data, data.name), sha256=ROWS)
        calibration, evaluation = (
            rows.model_copy(update={"part": part}) for part in ((0.0, CALIBRATED), (CALIBRATED, 1.0))
        )
        self.data = Data(calibration=calibration, evaluation=evaluation)
        self.original = as_compressible(family(self.file.format).open_model(Path(self.file.path), context))

    def analyze(self) -> tuple[SensitivityMap, float]:
        """The sensitivities, and the seconds that measuring them took."""
        started = time.perf_counter()
        asked = Analyze(model=self.file, options=self._options, data=self.data)
        found = perform(asked, self._folder, Context(scratch=self._folder))
        assert isinstance(found, Analyzed)
        return found.sensitivity, time.perf_counter() - started

    def uniform_average(self, bits: int) -> float:
        """Bits per weight with the same number everywhere, scales and zero points counted."""
        weights = candidates(self.original, self._options)
        forms = ((found, quantized(self.original, found, bits, self._options, None)) for found in weights)
        total = sum(self.original.stored_bits(found, form) for found, form in forms)
        return total / sum(found.size for found in weights)

    def make(self, bits: tuple[int, ...], average: float, known: SensitivityMap) -> Made:
        """Quantizes within ``average`` bits per weight and judges the file on the evaluation rows."""
        step = MixedQuantize(**{**self._options.model_dump(), "bits": bits, "average_bits": average})
        asked = Compress(model=self.file, recipe=(step,), data=self.data, sensitivities=(known,))
        made = perform(asked, self._folder, Context(scratch=self._folder))
        assert isinstance(made, Compressed)
        path = self._folder / made.path
        artifact = family(made.format).open_model(path, Context(scratch=self._folder))
        rows = open_dataset(self.data.evaluation)  # type: ignore[arg-type]  # it is given above
        judged = judge(self.original, artifact, rows, np.random.default_rng(0))
        assert judged.fidelity is not None
        value = judged.compressed.values[self._case.metric]
        size = artifact.size_bytes()
        return Made(size, judged.fidelity.cosine, judged.fidelity.sqnr_db, value, made.steps[0].changed)


def run(case: Case, options: SensitivityOptions) -> None:
    """Prints one case."""
    print(f"\n{case.name}, {options.algorithm}, groups of {options.group_size}")
    with tempfile.TemporaryDirectory(prefix="pressroom-sensitivity-") as name:
        bench = Bench(case, options, Path(name))
        known, seconds = bench.analyze()
        trials = sum(len(weight.options) for weight in known.weights)
        print(f"analysis: {len(known.weights)} weights, {trials} trials on {known.rows} rows in {seconds:.1f} s")
        print(f"{'bits per weight':18} {'':8} {'bytes':>12} {'cosine':>9} {'SQNR dB':>8} {case.metric:>9}  choice")
        for bits in UNIFORM_BITS:
            average = bench.uniform_average(bits)
            uniform = bench.make((bits,), 32.0, known)
            mixed = bench.make(options.bits, average, known)
            for kind, made in (("uniform", uniform), ("mixed", mixed)):
                print(
                    f"{average:<18.3f} {kind:8} {made.size_bytes:12,} {made.cosine:9.5f} {made.sqnr_db:8.2f} "
                    f"{made.value:9.4f}  {made.words}"
                )
            met = mixed.sqnr_db >= uniform.sqnr_db and mixed.size_bytes <= uniform.size_bytes * 1.001
            print(f"bar: mixed is closer to the original than uniform at no more bytes: {'met' if met else 'missed'}")


def main() -> None:
    """Runs every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=("rtn", "hqq", "gptq"), default="rtn")
    parser.add_argument("--samples", type=int, default=32, help="rows that outputs are compared on")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    asked = parser.parse_args()
    options = SensitivityOptions(algorithm=asked.algorithm, sensitivity_samples=asked.samples)
    for case in CASES:
        if asked.only in case.name:
            run(case, options)


if __name__ == "__main__":
    main()
