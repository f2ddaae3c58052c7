"""The rows of the evidence: each technique on a real model with real data, and the peer it is held against."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import trained
from tests.benchmarks import inputs, peers
from workers.compression.specs.recipe import step_tag

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
    write_train: Callable[[Path], Path] | None = None
    write_student: Callable[[Path], Path] | None = None

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
