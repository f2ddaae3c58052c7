"""Lengths of the arrays in ai.onnx.ml's support vector machines, which runtimes index without checking."""

from onnx import NodeProto, helper

from workers.compression.families.onnx.walking import layer_name
from workers.compression.specs.errors import InvalidModel


def check_support_vectors(node: NodeProto) -> None:
    """Raises ``InvalidModel`` where a machine's arrays do not fit together; other nodes pass."""
    attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
    if node.op_type == "SVMRegressor":
        _check(node, attributes, vectors=attributes.get("n_supports", 0), rows=1)
    elif node.op_type == "SVMClassifier":
        per_class = attributes.get("vectors_per_class", ())
        if any(count < 0 for count in per_class):
            raise _broken(node)
        _check(node, attributes, vectors=sum(per_class), rows=max(1, len(per_class) - 1))


def _check(node: NodeProto, attributes: dict[str, "list[float]"], vectors: int, rows: int) -> None:
    """A machine without vectors is linear: its coefficients are its weights and may be of any number."""
    coefficients, stored = len(attributes.get("coefficients", ())), len(attributes.get("support_vectors", ()))
    pairs = rows * (rows + 1) // 2
    if not coefficients or len(attributes.get("rho", ())) < (pairs if vectors else 1):
        raise _broken(node)
    if vectors < 0 or (vectors and (coefficients != vectors * rows or stored == 0 or stored % vectors)):
        raise _broken(node)


def _broken(node: NodeProto) -> InvalidModel:
    name = layer_name(node)[:200]
    return InvalidModel(f"{node.op_type} {name!r} has arrays that do not fit together.", reason="onnx_invalid")
