"""What the best known tool makes of the same model, held against the same original on the same rows."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import skops.io
import torch
from onnxruntime import quantization as ort
from onnxruntime.transformers.float16 import convert_float_to_float16
from sklearn.ensemble import RandomForestClassifier
from torch.nn.utils import prune
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers.models.bert.modeling_bert import BertModel

from app.cli.zoo import fetch
from tests import trained
from workers.compression import data as datasets
from workers.compression.alone import CALIBRATION_SHARE
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.evaluation import judge
from workers.compression.registry import family
from workers.compression.scores import FidelitySums
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import DatasetFile, InspectModel, ModelInspection, Port
from workers.compression.specs.recipe import STEPS_BY_KEY, step_tag


@dataclass(frozen=True)
class Subject:
    """The files of one row, and what is asked of the peer; ``data`` is judged on, ``train`` learnt from."""

    folder: Path
    model: Path
    data: Path | None
    step: dict[str, object]
    metric: str
    train: Path | None = None
    student: Path | None = None

    def plain(self) -> Path:
        """The original as stock tools take it: the clean ONNX file, out of its archive."""
        inspection, clean = _inspect(self.model, self.folder / "plain")
        if inspection.details.get("tokenizer"):
            subprocess.run([sys.executable, "-m", "zipfile", "-e", clean, self.folder / "plain"], check=True)
            return self.folder / "plain" / "model.onnx"
        return clean


@dataclass(frozen=True)
class Figures:
    """What the peer reached."""

    size_bytes: int
    value: float | None
    cosine: float | None


def ort_dynamic(subject: Subject) -> Figures:
    """onnxruntime's ``quantize_dynamic``, per channel with the reduced range that AVX2 without VNNI needs."""
    output = subject.folder / "peer.onnx"
    ort.quantize_dynamic(subject.plain(), output, per_channel=True, reduce_range=True, weight_type=ort.QuantType.QInt8)
    return judged(subject, output)


class CalibrationRows(ort.CalibrationDataReader):
    """Calibration rows one batch at a time."""

    def __init__(self, rows: np.ndarray, size: int = 32) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter(
            [{"input": rows[start : start + size]} for start in range(0, len(rows), size)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None at the end."""
        return next(self._batches, None)


def ort_static(subject: Subject) -> Figures:
    """onnxruntime's ``quantize_static`` QDQ, per channel with reduced range, calibrated on 256 training rows."""
    output = subject.folder / "peer.onnx"
    rows = trained.digits_split()[0].reshape(-1, 1, 8, 8)[:256]
    ort.quantize_static(subject.plain(), output, CalibrationRows(rows), per_channel=True, reduce_range=True)
    return judged(subject, output)


def ort_float16(subject: Subject) -> Figures:
    """onnxruntime's float16 converter, inputs and outputs kept in float32."""
    output = subject.folder / "peer.onnx"
    onnx.save(convert_float_to_float16(onnx.load(subject.plain()), keep_io_types=True), output)
    return judged(subject, output)


def torch_half(subject: Subject) -> Figures:
    """``half()`` on every tensor of the state dict and ``torch.save``."""
    weights = torch.load(subject.model, weights_only=True, map_location="cpu")
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    output = subject.folder / "peer.pth"
    torch.save(halved, output)
    cosines = [
        torch.cosine_similarity(tensor.flatten().double(), halved[name].flatten().double(), dim=0).item()
        for name, tensor in weights.items()
        if tensor.is_floating_point() and tensor.any()
    ]
    return Figures(output.stat().st_size, min(cosines), min(cosines))


def torchao_weight_only(subject: Subject) -> Figures:
    """torchao's 8-bit weight-only configuration on the eager model, saved as torch saves it."""
    quantized = BertModel.from_pretrained(fetch("minilm-l6-hf")).eval()
    quantize_(quantized, Int8WeightOnlyConfig())
    return minilm_against(subject, quantized)


def minilm_against(subject: Subject, changed: torch.nn.Module) -> Figures:
    """A changed MiniLM, saved as torch saves it, against the original on the rows that ours was judged on."""
    original = BertModel.from_pretrained(fetch("minilm-l6-hf")).eval()
    output = subject.folder / "peer.pt"
    torch.save(changed.state_dict(), output)
    sums = FidelitySums()
    with torch.inference_mode():
        for feeds in _text_feeds(subject):
            pooled = [
                datasets.pool(network(**feeds).last_hidden_state.float().numpy(), _as_numpy(feeds), "mean")
                for network in (original, changed)
            ]
            sums.add(pooled[0], pooled[1], classes=False)
    return Figures(output.stat().st_size, None, sums.result().cosine)


def torch_global_magnitude(subject: Subject) -> Figures:
    """``torch.nn.utils.prune.global_unstructured`` on the trained network, exported like the original."""
    network = trained.trained("cnn")
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    prune.global_unstructured(
        [(layer, "weight") for layer in layers],
        pruning_method=prune.L1Unstructured,
        amount=float(str(subject.step["sparsity"])),
    )
    for layer in layers:
        prune.remove(layer, "weight")
    output = trained.write_onnx("cnn", subject.folder / "peer.onnx")
    network.load_state_dict(kept)
    trained.write_onnx("cnn", subject.folder / "original.onnx")
    return judged(subject, output, original=subject.folder / "original.onnx")


def sklearn_cost_complexity(subject: Subject) -> Figures:
    """A forest grown anew with scikit-learn's own ``ccp_alpha``."""
    images, _, labels, _ = trained.digits_split()
    alpha = float(str(subject.step["alpha"]))
    forest = RandomForestClassifier(100, ccp_alpha=alpha, random_state=0, n_jobs=1).fit(images, labels)
    skops.io.dump(forest, subject.folder / "peer.skops")
    return judged(subject, subject.folder / "peer.skops")


def greedy_ensemble(subject: Subject) -> Figures:
    """Greedy forward selection by the accuracy of the vote on the calibration rows that ours has (Caruana 2004)."""
    images, _, labels, _ = trained.digits_split()
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1).fit(images, labels)
    rows = _dataset(subject, calibration=True)
    batch = next(rows.batches((Port(name="input", shape=(-1, 64), dtype="float32"),), rows.rows, None))
    votes = np.stack([tree.predict_proba(batch.feeds["input"]) for tree in forest.estimators_])
    chosen: list[int] = []
    total = np.zeros_like(votes[0])
    for _ in range(round(100 * float(str(subject.step["keep"])))):
        hits = [
            -1.0 if index in chosen else float(np.mean(np.argmax(total + votes[index], axis=1) == batch.targets))
            for index in range(len(votes))
        ]
        chosen.append(int(np.argmax(hits)))
        total += votes[chosen[-1]]
    forest.estimators_ = [forest.estimators_[index] for index in chosen]
    forest.n_estimators = len(chosen)
    skops.io.dump(forest, subject.folder / "peer.skops")
    return judged(subject, subject.folder / "peer.skops")


def judged(subject: Subject, made: Path, original: Path | None = None) -> Figures:
    """The peer's file against the original, through the harness that judges ours."""
    before, after = (
        _open(path, subject.folder / side) for path, side in ((original or subject.model, "a"), (made, "b"))
    )
    rows = _dataset(subject)
    judgement = judge(before, after, rows, np.random.default_rng(0), outputs_may_change=subject.train is not None)
    cosine = None if judgement.fidelity is None else judgement.fidelity.cosine
    return Figures(made.stat().st_size, judgement.compressed.values.get(subject.metric), cosine)


def _open(path: Path, scratch: Path) -> Any:
    inspection, clean = _inspect(path, scratch)
    return family(inspection.format).open_model(clean, Context(scratch=scratch))


def _inspect(path: Path, scratch: Path) -> tuple[ModelInspection, Path]:
    scratch.mkdir(exist_ok=True)
    inspection = perform(InspectModel(path=str(path)), scratch, Context(scratch=scratch))
    if not isinstance(inspection, ModelInspection):
        raise TypeError("an inspection was asked for")
    return inspection, scratch / inspection.clean if inspection.clean else path


def _dataset(subject: Subject, *, calibration: bool = False) -> datasets.Dataset:
    """The rows that ours was judged on, or those it was calibrated on."""
    if subject.data is None:
        raise ValueError("this peer is judged on data")
    found = datasets.inspect(subject.data, subject.data.name, DatasetFields(), subject.folder)
    calibrated = subject.train is None and STEPS_BY_KEY[str(step_tag(subject.step))].needs
    split = CALIBRATION_SHARE if calibrated else 0.0
    part = (0.0, split) if calibration else (split, 1.0)
    return datasets.open_dataset(DatasetFile(path=str(subject.data), format=found.format, part=part)).limited(2000)


def _text_feeds(subject: Subject) -> Iterator[dict[str, torch.Tensor]]:
    model = _open(subject.model, subject.folder / "tokens")
    for batch in _dataset(subject).batches(model.inputs, 16, model.tokenizer_file()):
        yield {name: torch.from_numpy(values) for name, values in batch.feeds.items()}


def _as_numpy(feeds: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in feeds.items()}
