"""A scikit-learn tree or tree ensemble."""

import copy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.compression.families.model import Array, Feeds, Model, StoredLayer
from workers.compression.families.trees.estimators import HISTOGRAM_BOOSTERS, is_classifier, tree_owners
from workers.compression.families.trees.gate import TRUSTED
from workers.compression.families.trees.writing import skops_bytes
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port

_MAX_LABEL = 10_000


class TreeModel(Model):
    """One input ``input`` [batch, features]; one output: ``probabilities`` [batch, classes] or ``values`` [batch].

    Where the class labels are whole numbers from 0 on, column *i* of the probabilities is the label *i*, with zeros
    for labels that the model never saw; other labels stand in the order of ``classes_``, which is sorted. Either way
    the columns are what a dataset's class indices mean.

    Args:
        estimator: A checked estimator; never changed.
        compression: The ZIP method of the file it came from, kept when it is saved.
        size_bytes: Size of that file; None for an estimator that was changed since.
    """

    format: ClassVar[ModelFormat] = ModelFormat.SKOPS
    family: ClassVar[Family] = Family.TREE_ENSEMBLE
    extension: ClassVar[str] = ".skops"

    def __init__(self, estimator: Any, compression: int, size_bytes: int | None = None) -> None:
        self.estimator = estimator
        self._compression = compression
        self._size = size_bytes
        self._runner = copy.copy(estimator)
        # Inputs come without column names here, and a file must not choose how many threads a prediction starts.
        vars(self._runner).pop("feature_names_in_", None)
        self.threads(1)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The feature matrix; histogram boosters compare in float64, all others in float32."""
        dtype = "float64" if isinstance(self.estimator, HISTOGRAM_BOOSTERS) else "float32"
        return (Port(name="input", shape=("batch", int(self.estimator.n_features_in_)), dtype=dtype),)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Class probabilities or predicted values."""
        if is_classifier(self.estimator):
            return (Port(name="probabilities", shape=("batch", self._columns[1]), dtype="float64"),)
        return (Port(name="values", shape=("batch",), dtype="float64"),)

    def run(self, feeds: Feeds) -> list[Array]:
        """Predicts one batch."""
        features = feeds["input"]
        if features.ndim != 2 or features.shape[1] != self.estimator.n_features_in_:
            raise DatasetMismatch(f"The model takes {self.estimator.n_features_in_} features per row.")
        if not is_classifier(self.estimator):
            return [np.asarray(self._runner.predict(features), np.float64)]
        found = np.asarray(self._runner.predict_proba(features), np.float64)
        positions, width = self._columns
        if width == found.shape[1]:
            return [found]
        spread = np.zeros((len(found), width))
        spread[:, positions] = found
        return [spread]

    def save(self, path: Path) -> None:
        """Writes the .skops file; same model, same bytes."""
        path.write_bytes(self._bytes)

    def stored_layers(self) -> Iterator[StoredLayer]:
        """One layer per tree; its parameters are all numbers stored for its nodes."""
        for name, owner in tree_owners(self.estimator):
            arrays = node_arrays(owner)
            numbers = sum(array.size * max(1, len(array.dtype.names or ())) for array in arrays)
            size = sum(array.nbytes for array in arrays)
            yield StoredLayer(name, type(owner).__name__, numbers, numbers, size, size * 8 / numbers)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Thresholds and values of each tree."""
        for name, owner in tree_owners(self.estimator):
            thresholds, values = _split_figures(owner)
            yield f"{name}.threshold", thresholds
            yield f"{name}.value", values

    def size_bytes(self) -> int:
        """Bytes of the .skops file."""
        return len(self._bytes) if self._size is None else self._size

    def load_snippet(self, name: str) -> str:
        """Opens the file with scikit-learn and skops."""
        return f'import skops.io\n\nmodel = skops.io.load("{name}", trusted={TRUSTED})'

    def threads(self, count: int) -> None:
        """Threads over the members of a forest."""
        if hasattr(self._runner, "n_jobs"):
            self._runner.n_jobs = count
        if hasattr(self._runner, "verbose"):
            self._runner.verbose = 0

    def changed(self, estimator: Any) -> "TreeModel":
        """The model of a changed copy of the estimator."""
        return TreeModel(estimator, self._compression)

    @cached_property
    def _bytes(self) -> bytes:
        return skops_bytes(self.estimator, self._compression)

    @cached_property
    def _columns(self) -> tuple[npt.NDArray[np.int64], int]:
        """Where the columns of ``predict_proba`` go, and how many columns there are."""
        classes = np.asarray(self.estimator.classes_)
        count = len(classes)
        if classes.dtype.kind in "iu" and classes.min() >= 0 and classes.max() < _MAX_LABEL:
            return classes.astype(np.int64), int(classes.max()) + 1
        return np.arange(count), count


def as_trees(model: Model) -> TreeModel:
    """The model as what a handler for the skops format was promised."""
    if not isinstance(model, TreeModel):
        raise TypeError(f"a tree handler was given a {type(model).__name__}")
    return model


def node_arrays(owner: Any) -> tuple[Array, ...]:
    """The arrays that hold a tree: nodes and values, or nodes alone in a histogram booster."""
    if not hasattr(owner, "tree_"):
        return (owner.nodes,)
    state = owner.tree_.__getstate__()
    return state["nodes"], state["values"]


def _split_figures(owner: Any) -> tuple[Array, Array]:
    if hasattr(owner, "tree_"):
        return owner.tree_.threshold, owner.tree_.value
    return owner.nodes["num_threshold"], owner.nodes["value"]
