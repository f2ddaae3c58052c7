"""Pickles in every dress; none is ever loaded, whatever it holds."""

import bz2
import gzip
import io
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Catalogue

PICKLES = Catalogue("pickle", "model", "model.pkl")
PICKLED_DATASETS = Catalogue("pickle", "dataset", "data.npz")


class Call:
    """Pickles as a call of ``function``: whoever loads it makes the call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.parts


def touch(marker: Path) -> Call:
    """The payload of every case: it creates its marker file and does nothing else."""
    return Call(os.system, f"touch '{marker}'")


def pickled(value: Any, protocol: int = 2) -> bytes:
    return pickle.dumps(value, protocol=protocol)


def opcodes(value: Any) -> bytes:
    """The instructions that put ``value`` on the stack, without header and STOP."""
    return pickled(value)[2:-1]


for version in range(6):
    PICKLES.add(
        f"protocol_{version}",
        lambda marker, version=version: pickled(touch(marker), version),
        ("unsupported_format",),
        ("format_refused", "checkpoint_not_zip"),
    )


@PICKLES.refused("unsupported_format", filename="model.joblib")
def harmless_joblib(_: Path) -> bytes:
    return pickled({"coef_": [0.5, 0.25]}, 4)


@PICKLES.refused("unsupported_format", filename="model.joblib")
def joblib_compressed_by_zlib(marker: Path) -> bytes:
    return zlib.compress(pickled(touch(marker), 4))


@PICKLES.refused("unsupported_format", filename="model.joblib.gz")
def joblib_compressed_by_gzip(marker: Path) -> bytes:
    return gzip.compress(pickled(touch(marker), 4))


@PICKLES.refused("unsupported_format", filename="model.joblib.bz2")
def joblib_compressed_by_bzip2(marker: Path) -> bytes:
    return bz2.compress(pickled(touch(marker), 4))


@PICKLES.refused("unsupported_format", filename="model.safetensors")
def named_like_a_safetensors_file(marker: Path) -> bytes:
    return pickled(touch(marker), 4)


@PICKLES.refused("unsupported_format", filename="model.ckpt")
def checkpoint_with_hyperparameters(marker: Path) -> bytes:
    return pickled({"hyper_parameters": touch(marker), "state_dict": {}}, 3)


@PICKLES.refused("unsupported_format", filename="array.npy")
def npy_of_objects(marker: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([touch(marker)], dtype=object), allow_pickle=True)
    return out.getvalue()


@PICKLED_DATASETS.refused("unsupported_format", "invalid_dataset")
def as_a_dataset(marker: Path) -> bytes:
    return pickled(touch(marker), 4)


@PICKLED_DATASETS.refused("unsupported_format", "invalid_dataset", filename="data.csv")
def as_a_dataset_in_text_protocol(marker: Path) -> bytes:
    return pickled(touch(marker), 0)
