"""Trained networks as files, exported once per run, and the rows to judge them on."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests import trained
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The trained ``mlp`` or ``cnn`` as an ONNX file."""
    return cache(lambda kind: trained.write_onnx(kind, tmp_path_factory.mktemp("onnx") / f"{kind}.onnx"))


@pytest.fixture
def open_onnx(onnx_file: Callable[[str], Path], tmp_path: Path) -> Callable[[str], OnnxModel]:
    """The same, opened anew each time."""
    return lambda kind: open_model(onnx_file(kind), Context(scratch=tmp_path))


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """The digits' test rows, or train rows, in the shape that ``mlp`` or ``cnn`` takes."""

    @cache
    def rows(kind: str, *, train: bool = False) -> Dataset:
        path = trained.write_npz(kind, tmp_path_factory.mktemp("digits") / "digits.npz", train=train)
        return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.NPZ))

    return rows
