"""The evidence's rows of 8-bit integers beyond the first ones, and the peers they are held against."""

from pathlib import Path

import numpy as np
from onnxruntime import quantization as ort

from tests import trained
from tests.benchmarks import inputs, peers
from tests.benchmarks.int8_inputs import sentence_rows, write_recurrent
from tests.benchmarks.rows import CNN, DIGITS, DYNAMIC, MINILM, STATIC, WORDS, Row
from workers.compression.context import Context
from workers.compression.families.model import Feeds
from workers.compression.families.onnx.family import open_model

PEER_ROWS = 128


class _Batches(ort.CalibrationDataReader):
    """Feeds one batch at a time."""

    def __init__(self, feeds: list[Feeds]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feeds | None:
        """The next batch, None at the end."""
        return next(self._left, None)


def ort_static_sentences(subject: peers.Subject) -> peers.Figures:
    """onnxruntime's ``quantize_static`` of all operators, per channel with reduced range, on 128 sentences."""
    output, plain = subject.folder / "peer.onnx", subject.plain()
    model = open_model(subject.model, Context(scratch=subject.folder))
    rows = sentence_rows(subject.folder, "lee_background.cor", PEER_ROWS)
    feeds: list[Feeds] = [dict(batch.feeds) for batch in rows.batches(model.inputs, 8, model.tokenizer_file())]
    ort.quantize_static(plain, output, _Batches(feeds), per_channel=True, reduce_range=True)
    return peers.judged(subject, output)


def ort_static_export(subject: peers.Subject) -> peers.Figures:
    """onnxruntime's ``quantize_static`` of the same network exported to ONNX, per channel with reduced range."""
    source = trained.write_onnx("cnn", subject.folder / "source.onnx")
    output = subject.folder / "peer.onnx"
    rows = trained.digits_split()[0].reshape(-1, 1, 8, 8)[:256]
    ort.quantize_static(source, output, peers.CalibrationRows(rows), per_channel=True, reduce_range=True)
    return peers.judged(subject, output, original=source)


def _cnn_pt2(folder: Path) -> Path:
    return trained.write_pt2("cnn", folder / "digits_cnn.pt2")


def _images(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


def _sequences(folder: Path) -> Path:
    _, images, _, labels = trained.digits_split()
    np.savez(folder / "digits.npz", input=images.reshape(-1, 8, 8), target=labels)
    return folder / "digits.npz"


ROWS = (
    Row(
        STATIC, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "onnxruntime quantize_static, all operators, per channel, reduced range", ort_static_sentences,
    ),
    Row(
        STATIC, f"{CNN}, pt2", _cnn_pt2, DIGITS, _images, "accuracy",
        "onnxruntime quantize_static of the ONNX export, per channel, reduced range", ort_static_export,
    ),
    Row(
        DYNAMIC, "LSTM trained on digits, ONNX", write_recurrent, DIGITS, _sequences, "accuracy",
        "onnxruntime quantize_dynamic, per channel, reduced range", peers.ort_dynamic,
    ),
)  # fmt: skip
