"""4-bit codebooks against 4-bit integers at the same file size, on every network of the zoo that stores matrices.

    python -m tests.benchmarks.nonuniform [--only NAME] [--bits 4]

Both sides go through their techniques and are written as files of the model's own format, everything in them counted.
Integers are cut where they err least (``range: mse``). For each way to store integers the codebooks that err least
among those whose file is no larger are held against it; the bar is at the size of the integers that err least. SQNR is
over all weights.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.cli.zoo import fetch
from tests.benchmarks.inputs import minilm_onnx
from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, Weight, WeightForm, as_compressible
from workers.compression.registry import family, handler_for
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.step import Step
from workers.compression.specs.steps.quantize_weights import KmeansQuantize, WeightOnlyQuantize

NETWORKS: dict[str, Callable[[Path], Path]] = {
    "all-MiniLM-L6-v2": minilm_onnx,
    "magika": lambda _: fetch("magika") / "model.onnx",
    "silero-vad": lambda _: fetch("silero-vad") / "model.onnx",
    "PP-OCR recognition": lambda _: fetch("ppocr") / "recognition.onnx",
    "PP-OCR orientation": lambda _: fetch("ppocr") / "orientation.onnx",
    "basic-pitch": lambda _: fetch("basic-pitch") / "model.onnx",
    "CREPE tiny": lambda _: fetch("crepe-tiny") / "model.pth",
    "EasyOCR CRNN": lambda _: fetch("easyocr-crnn") / "model.pth",
}
INTEGERS = [{"granularity": "tensor"}, {"granularity": "channel"}] + [
    {"granularity": "group", "group_size": size, "scheme": scheme}
    for size in (128, 64, 32)
    for scheme in ("affine", "symmetric")
]
CODEBOOKS = [
    {"granularity": "tensor"},
    *({"granularity": "group", "group_size": size} for size in (64, 32, 16, 8, 4, 2)),
    {"granularity": "channel"},
]
SCALED = [{"scale_group": size} for size in (128, 64, 32, 16)]


@dataclass(frozen=True)
class Stored:
    """A file and how near its weights are to the original's."""

    label: str
    size_bytes: int
    sqnr_db: float


def store(path: Path, spec: Step, label: str, folder: Path) -> Stored:
    """Carries out one step on a network and writes the file."""
    model_format = sniff_model(path)
    model = as_compressible(family(model_format).open_model(path, Context(scratch=folder)))
    signal = sum(_energy(model.matrix(weight)) for weight in model.weights())
    noise: list[float] = []
    _watch(model, noise)
    made = handler_for(type(spec), model_format)(model, spec, Context(scratch=folder))
    made.save(folder / "made")
    return Stored(label, (folder / "made").stat().st_size, float(10 * np.log10(signal / max(sum(noise), 1e-30))))


def _watch(model: CompressibleModel, noise: list[float]) -> None:
    """Notes the squared error of every form that the model is given to store."""
    stored = model.store

    def watched(forms: Iterable[tuple[Weight, WeightForm]]) -> None:
        def passed() -> Iterator[tuple[Weight, WeightForm]]:
            for weight, form in forms:
                noise.append(_energy(form.restored() - model.matrix(weight)))
                yield weight, form

        stored(passed())

    model.store = watched  # type: ignore[method-assign]


def _energy(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def compare(name: str, path: Path, bits: int, folder: Path) -> bool:
    """Prints a network's files; whether codebooks win at the size of the integers that err least."""
    books = [
        store(path, KmeansQuantize.model_validate({"bits": bits, **found}), _label(found), folder)
        for found in CODEBOOKS + SCALED
    ]
    lost = 0
    bar: tuple[Stored, bool] | None = None
    print(f"\n{name}: {path.stat().st_size:,} bytes")
    print(f"  {'integers':28}{'bytes':>12}{'SQNR dB':>9}   {'codebooks no larger':28}{'bytes':>12}{'SQNR dB':>9}")
    for found in INTEGERS:
        spec = WeightOnlyQuantize.model_validate({"bits": bits, "range": "mse", **found})
        ours = store(path, spec, _label(found), folder)
        smaller = [book for book in books if book.size_bytes <= ours.size_bytes]
        best = max(smaller, key=lambda book: book.sqnr_db, default=Stored("none", 0, float("-inf")))
        won = best.sqnr_db > ours.sqnr_db
        lost += not won
        if bar is None or ours.sqnr_db > bar[0].sqnr_db:
            bar = ours, won
        print(
            f"  {ours.label:28}{ours.size_bytes:12,}{ours.sqnr_db:9.2f}   "
            f"{best.label:28}{best.size_bytes:12,}{best.sqnr_db:9.2f}{'' if won else '   integers win'}",
            flush=True,
        )
    won = bar is not None and bar[1]
    outcome = "lose" if won else "win"
    print(f"  the best integers {outcome}; at their own size {lost} of {len(INTEGERS)} win")
    return won


def _label(options: dict[str, object]) -> str:
    if "scale_group" in options:
        return f"scale of {options['scale_group']}"
    return " ".join(str(value) for value in options.values())


def main() -> None:
    """Compares all networks and says whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--bits", type=int, default=4)
    arguments = parser.parse_args()
    results: dict[str, bool] = {}
    for name, write in NETWORKS.items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as folder:
                results[name] = compare(name, write(Path(folder)), arguments.bits, Path(folder))
    missed = [name for name, won in results.items() if not won]
    verdict = "met" if not missed else f"missed on {', '.join(missed)}"
    print(f"\nbar: non-uniform {arguments.bits}-bit beats uniform in SQNR at the same file size: {verdict}")


if __name__ == "__main__":
    main()
