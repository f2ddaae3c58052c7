"""skops archives: types nobody should trust, and trees that walk out of their arrays."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import Entry, deflated_zeros, forged_zip, zip_of
from tests.hostile.pickles import pickled, touch

SKOPS = Catalogue("skops", "model", "model.skops")

UNTRUSTED = "sklearn_untrusted_type"
STRUCTURE = "sklearn_*"


def trained(model: Any) -> bytes:
    content: bytes = skops.io.dumps(model.fit(*load_iris(return_X_y=True)))
    return content


@cache
def tree() -> dict[str, bytes]:
    """Members of a small sound decision tree."""
    return members(trained(DecisionTreeClassifier(max_depth=3, random_state=0)))


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# Objects of one __id__ are loaded once, so what is changed gets an __id__ of its own.


def with_schema(change: Callable[[dict[str, Any]], None], base: dict[str, bytes] | None = None) -> bytes:
    """The archive after ``change`` edited its schema."""
    held = base or tree()
    schema = json.loads(held["schema.json"])
    change(schema)
    return zip_of(held | {"schema.json": json.dumps(schema).encode()})


def with_nodes(change: Callable[[np.ndarray], None]) -> bytes:
    """The tree after ``change`` edited its node table."""
    schema = json.loads(tree()["schema.json"])
    name = schema["content"]["content"]["tree_"]["content"]["content"]["nodes"]["file"]
    nodes = np.load(io.BytesIO(tree()[name]))
    change(nodes)
    out = io.BytesIO()
    np.save(out, nodes)
    return zip_of(tree() | {name: out.getvalue()})


@SKOPS.accepted()
def decision_tree(_: Path) -> bytes:
    return zip_of(tree())


@SKOPS.accepted()
def random_forest(_: Path) -> bytes:
    return trained(RandomForestClassifier(5, max_depth=3, random_state=0))


@SKOPS.accepted()
def gradient_boosting(_: Path) -> bytes:
    return trained(GradientBoostingClassifier(n_estimators=3, random_state=0))


@SKOPS.refused("unsupported_format", reason="*")
def support_vector_machine(_: Path) -> bytes:
    return trained(SVC())


@SKOPS.refused("unsafe_model", reason=UNTRUSTED)
def transformer_that_calls_a_shell(_: Path) -> bytes:
    return bytes(skops.io.dumps(FunctionTransformer(os.system)))


def _retyped(module: str, name: str, loader: str | None = None) -> bytes:
    def change(schema: dict[str, Any]) -> None:
        node = schema["content"]["content"]["criterion"]
        node |= {"__module__": module, "__class__": name}
        if loader:
            node["__loader__"] = loader

    return with_schema(change)


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def type_of_another_module(_: Path) -> bytes:
    return _retyped("subprocess", "Popen", "TypeNode")


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def method_of_an_object(_: Path) -> bytes:
    return _retyped("builtins", "method", "MethodNode")


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def operator_function(_: Path) -> bytes:
    return _retyped("operator", "attrgetter", "OperatorFuncNode")


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def loader_that_does_not_exist(_: Path) -> bytes:
    return _retyped("builtins", "str", "EvilNode")


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def trusted_name_hidden_in_another_module(_: Path) -> bytes:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["tree_"]["__module__"] = "sklearn.tree._tree.evil"

    return with_schema(change)


@SKOPS.refused("unsafe_model", "invalid_model", reason=STRUCTURE)
def array_of_objects(marker: Path) -> bytes:
    name = next(name for name in tree() if name.endswith(".npy"))
    out = io.BytesIO()
    np.save(out, np.array([touch(marker)], dtype=object), allow_pickle=True)
    return zip_of(tree() | {name: out.getvalue()})


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def child_out_of_range(_: Path) -> bytes:
    return with_nodes(lambda nodes: nodes["left_child"].__setitem__(0, 10**9))


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def node_that_is_its_own_child(_: Path) -> bytes:
    return with_nodes(lambda nodes: nodes["left_child"].__setitem__(0, 0))


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def child_that_is_negative(_: Path) -> bytes:
    return with_nodes(lambda nodes: nodes["right_child"].__setitem__(0, -7))


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def node_with_one_child(_: Path) -> bytes:
    return with_nodes(lambda nodes: nodes["right_child"].__setitem__(0, -1))


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def feature_out_of_range(_: Path) -> bytes:
    return with_nodes(lambda nodes: nodes["feature"].__setitem__(0, 1 << 40))


@SKOPS.refused("invalid_model", "unsafe_model", READY, reason=STRUCTURE)
def more_nodes_than_rows_of_values(_: Path) -> bytes:
    def change(schema: dict[str, Any]) -> None:
        state = schema["content"]["content"]["tree_"]["content"]["content"]
        state["node_count"] |= {"content": str(1 << 40), "__id__": 1}

    return with_schema(change)


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def feature_count_that_does_not_fit(_: Path) -> bytes:
    def change(schema: dict[str, Any]) -> None:
        arguments = schema["content"]["content"]["tree_"]["__reduce__"]["args"]["content"]
        arguments[0] |= {"content": "2", "__id__": 1}

    return with_schema(change)


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE + "|json_*")
def schema_nested_100_000_deep(_: Path) -> bytes:
    return zip_of(tree() | {"schema.json": b'{"content":' * 100_000 + b"1" + b"}" * 100_000})


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE + "|json_*")
def schema_that_is_not_json(_: Path) -> bytes:
    return zip_of(tree() | {"schema.json": pickled([1])})


@SKOPS.refused("invalid_model", "unsafe_model", reason=STRUCTURE)
def member_that_is_missing(_: Path) -> bytes:
    return zip_of(dict(list(tree().items())[1:]))


@SKOPS.refused("too_large", reason="archive_bomb|sklearn_*")
def unfolds_into_a_gigabyte(_: Path) -> bytes:
    entries = [Entry(name.encode(), content) for name, content in tree().items()]
    return forged_zip([*entries, Entry(b"9.npy", method=8, deflated=deflated_zeros(1024), size=1 << 30, crc=0)])


@SKOPS.refused("unsafe_model", "invalid_model", "unsupported_format", reason=STRUCTURE + "|archive_*|format_refused")
def pickle_beside_the_schema(marker: Path) -> bytes:
    return zip_of(tree() | {"model.pkl": pickled(touch(marker))})
