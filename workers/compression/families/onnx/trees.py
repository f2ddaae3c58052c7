"""Structure of the tree ensembles and support vector machines in ai.onnx.ml, which runtimes index without checking."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from workers.compression.families.onnx.walking import layer_name
from workers.compression.specs.errors import InvalidModel

MAX_TREE_NODES = 10_000_000
Ids = npt.NDArray[np.int64]

_PER_NODE = ("nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_truenodeids", "nodes_falsenodeids")
_OPTIONAL_PER_NODE = ("nodes_hitrates", "nodes_missing_value_tracks_true")
_TARGETS = {"TreeEnsembleClassifier": "class", "TreeEnsembleRegressor": "target"}


def check_trees(node: NodeProto) -> None:
    """Raises ``InvalidModel`` where a tree ensemble's arrays differ in length, point outside or go in circles."""
    prefix = _TARGETS.get(node.op_type)
    if prefix is None:
        return
    attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
    trees = _ids(attributes, "nodes_treeids", node)
    if not 0 < trees.size <= MAX_TREE_NODES:
        raise _broken(node, "has no nodes, or too many")
    for name in _PER_NODE:
        if len(attributes.get(name, ())) != trees.size:
            raise _broken(node, f"has {name} of another length than nodes_treeids")
    for name in _OPTIONAL_PER_NODE:
        if len(attributes.get(name, ())) not in {0, trees.size}:
            raise _broken(node, f"has {name} of another length than nodes_treeids")
    if _values(attributes, "nodes_values") != trees.size:
        raise _broken(node, "has nodes_values of another length than nodes_treeids")
    if (_ids(attributes, "nodes_featureids", node) < 0).any():
        raise _broken(node, "has a negative feature index")
    positions = _positions(trees, _ids(attributes, "nodes_nodeids", node), node)
    _check_children(node, attributes, trees, positions)
    _check_targets(node, attributes, prefix, positions)


def _values(attributes: dict[str, object], name: str) -> int:
    stored = attributes.get(name)
    if stored is None:
        tensor = attributes.get(f"{name}_as_tensor")
        return int(tensor.dims[0]) if tensor is not None and tensor.dims else 0  # type: ignore[attr-defined]  # a TensorProto
    return len(stored) if isinstance(stored, Sequence) else 0


def _ids(attributes: dict[str, object], name: str, node: NodeProto) -> Ids:
    stored = attributes.get(name, ())
    if not isinstance(stored, Sequence):
        raise _broken(node, f"has {name} of the wrong type")
    return np.asarray(stored, dtype=np.int64)


def _positions(trees: Ids, nodes: Ids, node: NodeProto) -> dict[tuple[int, int], int]:
    positions = {key: index for index, key in enumerate(zip(trees.tolist(), nodes.tolist(), strict=True))}
    if len(positions) != trees.size:
        raise _broken(node, "has two nodes with one id")
    return positions


def _check_children(
    node: NodeProto, attributes: dict[str, object], trees: Ids, positions: dict[tuple[int, int], int]
) -> None:
    modes = attributes["nodes_modes"]
    inner = [index for index, mode in enumerate(modes) if mode != b"LEAF"]  # type: ignore[var-annotated,arg-type]  # list of bytes
    seen: set[int] = set()
    children: dict[int, list[int]] = {}
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        ids = _ids(attributes, name, node)
        for index in inner:
            child = positions.get((int(trees[index]), int(ids[index])))
            if child is None:
                raise _broken(node, "has a branch to a node that does not exist")
            if child in seen:
                raise _broken(node, "has a node with two parents")
            seen.add(child)
            children.setdefault(index, []).append(child)
    if _reachable(children, [index for index in range(trees.size) if index not in seen]) != trees.size:
        raise _broken(node, "has trees that go in circles")


def _reachable(children: dict[int, list[int]], roots: list[int]) -> int:
    count, waiting = 0, roots
    while waiting:
        count += 1
        waiting.extend(children.get(waiting.pop(), ()))
    return count


def _check_targets(
    node: NodeProto, attributes: dict[str, object], prefix: str, positions: dict[tuple[int, int], int]
) -> None:
    trees = _ids(attributes, f"{prefix}_treeids", node)
    nodes = _ids(attributes, f"{prefix}_nodeids", node)
    ids = _ids(attributes, f"{prefix}_ids", node)
    lengths = {trees.size, nodes.size, ids.size, _values(attributes, f"{prefix}_weights")}
    if len(lengths) != 1:
        raise _broken(node, f"has {prefix} arrays of different lengths")
    if any(key not in positions for key in zip(trees.tolist(), nodes.tolist(), strict=True)):
        raise _broken(node, "has weights for a node that does not exist")
    outputs = _output_count(attributes)
    if ids.size and (ids.min() < 0 or ids.max() >= outputs):
        raise _broken(node, "has a weight for an output that does not exist")


def _output_count(attributes: dict[str, object]) -> int:
    labels = attributes.get("classlabels_int64s") or attributes.get("classlabels_strings")
    if isinstance(labels, Sequence):
        return max(len(labels), 1)
    targets = attributes.get("n_targets")
    return targets if isinstance(targets, int) else 1


def _broken(node: NodeProto, problem: str) -> InvalidModel:
    return InvalidModel(f"{node.op_type} {layer_name(node)[:200]!r} {problem}.", reason="onnx_invalid")
