"""scikit-learn trees in .skops files: gate, load, check, describe."""

import struct
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from workers.compression.context import Context
from workers.compression.families.statistics import describe_tensor
from workers.compression.families.trees.entries import SCHEMA
from workers.compression.families.trees.estimators import SERVED
from workers.compression.families.trees.gate import TRUSTED, check_file
from workers.compression.families.trees.model import TreeModel
from workers.compression.families.trees.structure import check_estimator, check_initial_scores
from workers.compression.specs.errors import InvalidModel, UnsafeModel
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import ModelInspection

_MALFORMED = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, EOFError, OverflowError, ImportError,
    MemoryError, struct.error, zlib.error, zipfile.BadZipFile, UnsupportedTypeException,
)  # fmt: skip


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks and describes the file, which is its own clean form.

    Raises:
        UnsafeModel: ``sklearn_untrusted_type``, ``archive_entry_refused``.
        UnsupportedFormat: ``sklearn_estimator``.
        InvalidModel: ``sklearn_structure``, ``archive_invalid``, ``json_*``.
        TooLarge: ``archive_bomb``.
    """
    model, notes = _open(path)
    layers = list(model.stored_layers())
    kinds = Counter(layer.op for layer in layers)
    return ModelInspection(
        format=ModelFormat.SKOPS,
        family=Family.TREE_ENSEMBLE,
        parameters=sum(layer.parameters for layer in layers),
        inputs=model.inputs,
        outputs=model.outputs,
        tensors=tuple(describe_tensor(name, tensor) for name, tensor in model.tensors()),
        details={"estimator": type(model.estimator).__name__, "trees": len(layers), "members": dict(kinds)},
        warnings=tuple(notes),
    )


def open_model(path: Path, context: Context) -> TreeModel:
    """Opens the file; checks it again, for the bytes may have been anyone's."""
    return _open(path)[0]


def _open(path: Path) -> tuple[TreeModel, list[str]]:
    check_file(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = skops.io.load(path, trusted=TRUSTED)
            if type(estimator) not in SERVED:
                raise InvalidModel("The file does not hold what its schema says.", reason="sklearn_structure")
            check_estimator(estimator)
            check_initial_scores(estimator)
            model = TreeModel(estimator, _compression(path), path.stat().st_size)
            _try(model)
        except UntrustedTypesFoundException as error:
            raise UnsafeModel("The file names types that are not trusted.", reason="sklearn_untrusted_type") from error
        except _MALFORMED as error:
            raise InvalidModel(
                "scikit-learn cannot use the file.",
                reason="sklearn_structure",
                hint="Save the model with a current scikit-learn and skops.",
            ) from error
    return model, sorted({str(note.message)[:500] for note in caught})[:10]


def _try(model: TreeModel) -> None:
    """One prediction, so that a missing attribute shows now and not in the middle of a job."""
    port = model.inputs[0]
    outputs: list[Any] = model.run({"input": np.zeros((1, model.estimator.n_features_in_), port.dtype)})
    if not np.isfinite(outputs[0]).all():
        raise InvalidModel("The model predicts NaN or infinity.", reason="sklearn_structure")


def _compression(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(SCHEMA).compress_type
