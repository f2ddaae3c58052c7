"""Runs every technique on a real model beside its best peer and writes ``EVIDENCE.md`` and the catalogue's rows.

    python -m tests.benchmarks.evidence [--only quantize]

Each row goes through the engine as a user's job does: inspection, recipe, stored artifact re-opened in a fresh process,
paired measurement. The peer's artifact is then held against the same original on the same rows.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from tests import trained
from tests.benchmarks import inputs, peers
from workers.compression import alone
from workers.compression.specs.evidence import Evidence, load_evidence
from workers.compression.specs.recipe import STEPS_BY_KEY, step_tag
from workers.compression.specs.report import Report

JSON = Path("workers/compression/specs/evidence.json")
MARKDOWN = Path("EVIDENCE.md")
CNN = "CNN trained on digits"
FOREST = "random forest of 100 trees on digits"
MINILM = "all-MiniLM-L6-v2"
DIGITS = "scikit-learn digits, test split"
WORDS = "WordSim-353"
SYNTHETIC = "weights alone"


@dataclass(frozen=True)
class Row:
    """A technique on a model with data, and the peer to hold it against."""

    step: dict[str, object]
    model: str
    write_model: Callable[[Path], Path]
    data: str
    write_data: Callable[[Path], Path] | None
    metric: str
    peer: str
    measure_peer: Callable[[peers.Subject], peers.Figures]

    @property
    def technique(self) -> str:
        """``technique.method``."""
        return str(step_tag(self.step))


def _cnn_onnx(folder: Path) -> Path:
    return trained.write_onnx("cnn", folder / "digits_cnn.onnx")


def _cnn_pt2(folder: Path) -> Path:
    return trained.write_pt2("cnn", folder / "digits_cnn.pt2")


def _cnn_data(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


def _forest(folder: Path) -> Path:
    return trained.write_skops(folder / "forest.skops", trees=100)


def _flat_data(folder: Path) -> Path:
    return trained.write_npz("mlp", folder / "digits.npz")


DYNAMIC = {"technique": "quantize", "method": "dynamic"}
STATIC = {"technique": "quantize", "method": "static"}
FLOAT16 = {"technique": "quantize", "method": "float16"}
MAGNITUDE = {"technique": "prune", "method": "magnitude", "sparsity": 0.6}
COST_COMPLEXITY = {"technique": "prune", "method": "cost_complexity", "alpha": 0.002}
ENSEMBLE = {"technique": "prune", "method": "ensemble", "keep": 0.4}

ROWS = (
    Row(
        DYNAMIC, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime quantize_dynamic, per channel, reduced range", peers.ort_dynamic,
    ),
    Row(
        DYNAMIC, f"{MINILM}, Hugging Face", inputs.minilm_directory, WORDS, inputs.word_pairs, "spearman",
        "torchao Int8WeightOnly, torch.save", peers.torchao_weight_only,
    ),
    Row(
        STATIC, f"{CNN}, ONNX", _cnn_onnx, DIGITS, _cnn_data, "accuracy",
        "onnxruntime quantize_static, per channel, reduced range", peers.ort_static,
    ),
    Row(
        FLOAT16, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime convert_float_to_float16", peers.ort_float16,
    ),
    Row(
        FLOAT16, "CREPE tiny, state dict", inputs.crepe, SYNTHETIC, None, "fidelity",
        "torch half() and torch.save", peers.torch_half,
    ),
    Row(
        MAGNITUDE, f"{CNN}, ONNX", _cnn_onnx, DIGITS, _cnn_data, "accuracy",
        "torch.nn.utils.prune.global_unstructured, same sparsity", peers.torch_global_magnitude,
    ),
    Row(
        MAGNITUDE, f"{CNN}, pt2", _cnn_pt2, DIGITS, _cnn_data, "accuracy",
        "torch.nn.utils.prune.global_unstructured, same sparsity", peers.torch_global_magnitude,
    ),
    Row(
        COST_COMPLEXITY, FOREST, _forest, DIGITS, _flat_data, "accuracy",
        "scikit-learn ccp_alpha, forest grown anew", peers.sklearn_cost_complexity,
    ),
    Row(
        ENSEMBLE, FOREST, _forest, DIGITS, _flat_data, "accuracy",
        "greedy forward selection (Caruana 2004), same number of trees", peers.greedy_ensemble,
    ),
)  # fmt: skip


def measure(row: Row) -> Evidence:
    """One row: ours through the whole pipeline, then the peer on the same files."""
    with tempfile.TemporaryDirectory(prefix="pressroom-evidence-") as name:
        folder = Path(name)
        model = row.write_model(folder)
        data = row.write_data(folder) if row.write_data else None
        recipe = folder / "recipe.json"
        recipe.write_text(json.dumps([row.step]), "utf-8")
        command = [str(model), "--recipe", str(recipe), "--output", str(folder / "made")]
        if alone.main(command + (["--data", str(data)] if data else [])) != 0:
            raise SystemExit(f"{row.technique} failed on {row.model}")
        report = Report.model_validate_json((folder / "made" / "report.json").read_bytes())
        peer = row.measure_peer(peers.Subject(folder, model, data, row.step, row.metric))
    return _evidence(row, report, peer)


def _evidence(row: Row, report: Report, peer: peers.Figures) -> Evidence:
    before, after = report.metrics.original, report.metrics.compressed
    cosine = after.fidelity.cosine if after.fidelity else None
    return Evidence(
        technique=row.technique,
        format=report.original.format,
        model=row.model,
        data=row.data,
        bytes_original=before.size_bytes,
        bytes_artifact=after.size_bytes,
        metric=row.metric,
        original=1.0 if row.metric == "fidelity" else getattr(before, row.metric),
        compressed=cosine if row.metric == "fidelity" else getattr(after, row.metric),
        fidelity_cosine=cosine,
        peer=row.peer,
        peer_bytes=peer.size_bytes,
        peer_value=peer.value,
        peer_cosine=peer.cosine,
        command=f'make evidence ONLY="{row.technique}"',
    )


def to_markdown(rows: tuple[Evidence, ...]) -> str:
    """The table that people read."""
    columns = (
        "technique", "model", "data", "bytes", "ratio", "metric", "original", "compressed", "cosine", "peer",
        "its bytes", "its value", "its cosine",
    )  # fmt: skip
    lines = [
        "# Evidence",
        "",
        "One row per technique and model, written by `make evidence`. Bytes are those of the stored files; quality is",
        "measured on the artifact re-opened in a fresh process, on rows that were used for nothing else.",
        "",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
    ]
    lines += [_markdown_row(row) for row in rows]
    return "\n".join((*lines, ""))


def _markdown_row(row: Evidence) -> str:
    cells = (
        f"`{row.technique}`",
        row.model,
        row.data,
        f"{row.bytes_original:,} → {row.bytes_artifact:,}",
        f"{row.bytes_original / row.bytes_artifact:.2f}×",
        row.metric,
        f"{row.original:.4f}",
        f"{row.compressed:.4f}",
        _number(row.fidelity_cosine),
        row.peer,
        f"{row.peer_bytes:,}" if row.peer_bytes else "",
        _number(row.peer_value),
        _number(row.peer_cosine),
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def write(known: dict[tuple[str, str], Evidence]) -> tuple[Evidence, ...]:
    """Writes both files from the rows there are, in the order of ``ROWS``."""
    ordered = tuple(known[row.technique, row.model] for row in ROWS if (row.technique, row.model) in known)
    JSON.write_bytes(TypeAdapter(tuple[Evidence, ...]).dump_json(ordered, indent=2, exclude_none=True) + b"\n")
    MARKDOWN.write_text(to_markdown(ordered), "utf-8")
    return ordered


def main() -> int:
    """Measures the chosen rows, keeps the others as they are, and writes both files after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of a technique's or a model's name")
    wanted = parser.parse_args().only
    known = {(row.technique, row.model): row for row in load_evidence()}
    for row in ROWS:
        if wanted in f"{row.technique} {row.model}":
            known[row.technique, row.model] = measure(row)
            write(known)
    missing = sorted(set(STEPS_BY_KEY) - {row.technique for row in write(known)})
    if missing:
        sys.stderr.write(f"no evidence for: {', '.join(missing)}\n")
    return 1 if missing and not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
