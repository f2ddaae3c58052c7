"""What a .skops file may name and hold, checked on its schema and array headers before skops sees it.

skops itself refuses types that are not trusted, but it trusts all of scikit-learn, NumPy's and SciPy's functions, and
it unpacks without limit. Tree ensembles need a few dozen types; nothing else passes here.
"""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from workers.compression.families.trees.entries import SCHEMA
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.containers.limits import SKOPS_LIMITS
from workers.compression.specs.containers.npz_headers import MAX_HEADER_BYTES
from workers.compression.specs.containers.zip_rules import checked_entries
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel, UnsupportedFormat

TRUSTED = ["sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
_MAX_SCHEMA_BYTES = 128 << 20
_MAX_TEXT = 10_000

_NUMBERS = ("bool", "int32", "int64", "uint8", "uint32", "uint64", "float32", "float64", "str_", "bool_")
_LOSSES = (
    "HalfSquaredError", "AbsoluteError", "PinballLoss", "HuberLoss", "HalfPoissonLoss", "HalfGammaLoss",
    "HalfBinomialLoss", "HalfMultinomialLoss", "ExponentialLoss",
)  # fmt: skip
_COMPILED_LOSSES = tuple(f"Cy{name}" for name in _LOSSES)
_LINKS = ("Interval", "IdentityLink", "LogLink", "LogitLink", "HalfLogitLink", "MultinomialLogit")
_ESTIMATORS = {
    "sklearn.tree._classes": (
        "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    ),
    "sklearn.ensemble._forest": (
        "RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor",
    ),
    "sklearn.ensemble._gb": ("GradientBoostingClassifier", "GradientBoostingRegressor"),
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting": (
        "HistGradientBoostingClassifier", "HistGradientBoostingRegressor",
    ),
}  # fmt: skip
_PARTS = {
    ("builtins", "DictNode"): ("dict",),
    ("builtins", "ListNode"): ("list",),
    ("builtins", "TupleNode"): ("tuple",),
    ("builtins", "JsonNode"): ("str",),
    ("builtins", "TypeNode"): ("str", "int", "float", "bool"),
    ("numpy", "TypeNode"): _NUMBERS,
    ("numpy", "NdArrayNode"): ("ndarray", *_NUMBERS),
    ("numpy.random.mtrand", "RandomStateNode"): ("RandomState",),
    ("numpy.random._generator", "RandomGeneratorNode"): ("Generator",),
    ("sklearn._loss._loss", "LossNode"): _COMPILED_LOSSES,
    ("sklearn._loss.link", "ObjectNode"): _LINKS,
    ("sklearn._loss.loss", "ObjectNode"): _LOSSES,
    ("sklearn.dummy", "ObjectNode"): ("DummyClassifier", "DummyRegressor"),
    ("sklearn.ensemble._hist_gradient_boosting.binning", "ObjectNode"): ("_BinMapper",),
    ("sklearn.ensemble._hist_gradient_boosting.predictor", "ObjectNode"): ("TreePredictor",),
    ("sklearn.preprocessing._label", "ObjectNode"): ("LabelEncoder",),
    ("sklearn.tree._tree", "TreeNode"): ("Tree",),
}
_ALLOWED = {(module, "ObjectNode"): names for module, names in _ESTIMATORS.items()} | _PARTS
_LIBRARIES = ("sklearn", "numpy", "scipy")


def check_file(path: Path) -> None:
    """Lets through only a tree estimator made of the allowed types, with plain arrays of honest size.

    Raises:
        UnsafeModel: ``sklearn_untrusted_type`` for any type outside scikit-learn, NumPy and SciPy, or one of theirs
            that no tree estimator has; ``archive_entry_refused``.
        UnsupportedFormat: ``sklearn_estimator`` for estimators other than trees and their ensembles.
        InvalidModel: ``sklearn_structure``.
        TooLarge: ``archive_bomb``.
    """
    entries = checked_entries(path, SKOPS_LIMITS)
    names = {entry.filename: entry for entry in entries}
    if SCHEMA not in names:
        raise InvalidModel("The file has no schema.json.", reason="sklearn_structure")
    if names[SCHEMA].file_size > _MAX_SCHEMA_BYTES:
        raise TooLarge("The model's schema.json is too large.", reason="archive_bomb")
    try:
        with zipfile.ZipFile(path) as archive:
            schema = parse_json(archive.read(SCHEMA), InvalidModel)
            for name, entry in names.items():
                if name != SCHEMA:
                    with archive.open(entry) as file:
                        _check_array(file, entry)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InvalidModel("The file is damaged.", reason="archive_invalid") from error
    _check_types(schema)


def _check_types(schema: Any) -> None:
    """Foreign types first: what could run code is called unsafe even inside an estimator that is not served."""
    types = list(_types(schema))
    for module, loader, name in types:
        if name not in _ALLOWED.get((module, loader), ()) and module.split(".")[0] not in _LIBRARIES:
            raise _untrusted(module, name)
    if not types:
        raise InvalidModel("The schema describes no object.", reason="sklearn_structure")
    module, _, name = types[0]
    if name not in _ESTIMATORS.get(module, ()):
        raise UnsupportedFormat(
            f"The file holds a {module.split('.')[0]} {name[:100]}; served are decision trees, random forests, extra "
            "trees and gradient boosting.",
            reason="sklearn_estimator",
        )
    for module, loader, name in types:
        if name not in _ALLOWED.get((module, loader), ()):
            raise _untrusted(module, name)


def _untrusted(module: str, name: str) -> UnsafeModel:
    shown = ascii(f"{module}.{name}")[:200]
    return UnsafeModel(f"The file names {shown}, which no tree ensemble needs.", reason="sklearn_untrusted_type")


def _types(value: Any) -> list[tuple[str, str, str]]:
    """(module, loader, class) of every described object, outermost first."""
    found: list[tuple[str, str, str]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(reversed(item))
        elif isinstance(item, dict):
            if "__class__" in item or "__loader__" in item:
                found.append(_type(item))
            waiting.extend(reversed(item.values()))
    return found


def _type(item: dict[str, Any]) -> tuple[str, str, str]:
    module, loader, name = (item.get(key) for key in ("__module__", "__loader__", "__class__"))
    if not (isinstance(module, str) and isinstance(loader, str) and isinstance(name, str)):
        raise InvalidModel("An object of the schema has no complete type.", reason="sklearn_structure")
    content = item.get("content")
    if loader == "JsonNode" and not (
        isinstance(content, str) and len(content) <= _MAX_TEXT and content[:1] not in "[{"
    ):
        raise InvalidModel("A value of the schema is no short scalar.", reason="sklearn_structure")
    return module, loader, name


def _check_array(file: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """The header's shape needs exactly the bytes that follow: ``numpy.load`` would allocate whatever it claims."""
    header = io.BytesIO(file.read(MAX_HEADER_BYTES + 16))
    try:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(header, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise InvalidModel("An entry of the file is no plain array.", reason="sklearn_structure") from error
    if dtype.hasobject:
        raise UnsafeModel("An array of the file holds pickled objects.", reason="sklearn_untrusted_type")
    if math.prod(shape) * dtype.itemsize != entry.file_size - header.tell():
        raise InvalidModel("An array of the file has other bytes than its shape needs.", reason="sklearn_structure")
