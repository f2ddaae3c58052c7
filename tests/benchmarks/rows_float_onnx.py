"""The evidence's rows of ONNX models in narrower floats, and the peers they are held against."""

from pathlib import Path

from onnxruntime import quantization as ort

from tests import trained
from tests.benchmarks import inputs, peers
from tests.benchmarks.rows import CNN, DIGITS, MINILM, WORDS, Row

BFLOAT16 = {"technique": "quantize", "method": "bfloat16"}
FLOAT8 = {"technique": "quantize", "method": "float8"}


def _cnn(folder: Path) -> Path:
    return trained.write_onnx("cnn", folder / "digits_cnn.onnx")


def _digits(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


def ort_float8(subject: peers.Subject) -> peers.Figures:
    """onnxruntime's ``quantize_static`` to float8 e4m3, weights and activations, calibrated on 256 training rows."""
    output = subject.folder / "peer.onnx"
    rows = trained.digits_split()[0].reshape(-1, 1, 8, 8)[:256]
    ort.quantize_static(
        subject.plain(),
        output,
        peers.CalibrationRows(rows),
        activation_type=ort.QuantType.QFLOAT8E4M3FN,
        weight_type=ort.QuantType.QFLOAT8E4M3FN,
        calibrate_method=ort.CalibrationMethod.Distribution,
    )
    return peers.judged(subject, output)


ROWS = (
    Row(
        BFLOAT16, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime convert_float_to_float16 (it has no bfloat16)", peers.ort_float16,
    ),
    Row(
        FLOAT8, f"{CNN}, ONNX", _cnn, DIGITS, _digits, "accuracy",
        "onnxruntime quantize_static, float8 e4m3", ort_float8,
    ),
    Row(
        FLOAT8, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime quantize_dynamic int8, per channel, reduced range", peers.ort_dynamic,
    ),
)  # fmt: skip
