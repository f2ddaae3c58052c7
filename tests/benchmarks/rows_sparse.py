"""Evidence of ONNX files that leave zeros out."""

import zipfile
from dataclasses import replace
from pathlib import Path

import onnx

from tests import trained
from tests.benchmarks import peers
from tests.benchmarks.rows import CNN, DIGITS, MAGNITUDE, Row
from tests.benchmarks.rows_kmeans import KMEANS
from tests.benchmarks.sparse_onnx import with_sparse_initializers
from workers.compression.context import Context
from workers.compression.families.onnx.family import open_model
from workers.compression.registry import handler_for
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_weights import MagnitudePrune


def sparse_initializers(subject: peers.Subject) -> peers.Figures:
    """``torch.nn.utils.prune.global_unstructured``, stored as ONNX's sparse initializers of 32-bit positions."""
    found = peers.torch_global_magnitude(subject)
    stored = with_sparse_initializers(onnx.load(subject.folder / "peer.onnx"))
    return replace(found, size_bytes=len(stored))


def dense_and_zipped(subject: peers.Subject) -> peers.Figures:
    """The pruned file as it is, deflated: nothing is lost, and nothing runs before it is unpacked."""
    output = subject.folder / "peer.zip"
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(subject.model, "model.onnx")
    return replace(peers.judged(subject, subject.model), size_bytes=output.stat().st_size)


def _cnn(folder: Path) -> Path:
    return trained.write_onnx("cnn", folder / "digits_cnn.onnx")


def _pruned_cnn(folder: Path) -> Path:
    model = open_model(_cnn(folder), Context(scratch=folder))
    spec = MagnitudePrune.model_validate(MAGNITUDE)
    handler_for(MagnitudePrune, ModelFormat.ONNX)(model, spec, Context(scratch=folder))
    model.save(folder / "pruned_cnn.onnx")
    return folder / "pruned_cnn.onnx"


def _data(folder: Path) -> Path:
    return trained.write_npz("cnn", folder / "digits.npz")


ROWS = (
    Row(
        MAGNITUDE | {"storage": "sparse"}, f"{CNN}, ONNX, zeros left out", _cnn, DIGITS, _data, "accuracy",
        "torch.nn.utils.prune.global_unstructured, same sparsity, as ONNX sparse initializers", sparse_initializers,
    ),
    Row(
        KMEANS, f"{CNN}, ONNX, 60 % zeros", _pruned_cnn, DIGITS, _data, "accuracy",
        "the pruned float file, zipped", dense_and_zipped,
    ),
)  # fmt: skip
