"""Every string a ``.pt2`` program may hold, by the key it stands under.

Names end up in Python source that torch generates and runs, operator names in a chain of ``getattr``, tree
descriptions in imports: so a string without a rule refuses the upload.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

import torch
from torch._ops import OpOverload

from workers.compression.families.torch.pt2_expressions import check_expression
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel, UnsafeModel

IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w{0,500}", re.ASCII)
DOTTED_NAME: Final = re.compile(r"[A-Za-z_0-9][\w.\-]{0,500}", re.ASCII)
_WORDS: Final = re.compile(r"[\w ,.>\-]{0,200}", re.ASCII)
_VERSION: Final = re.compile(r"[\w.+<>= \-]{0,60}", re.ASCII)
_ATEN: Final = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
_REFUSED_OPERATORS: Final = frozenset(
    {"from_file", "save", "set_data", "set_", "set", "resize_", "resize", "resize_as_", "warn", "_print", "data"}
)
_PLAIN_FUNCTIONS: Final = frozenset(
    {
        *(
            f"_operator.{name}"
            for name in (
                "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge",
                "and_", "or_", "not_", "getitem",
            )
        ),
        *(f"math.{name}" for name in ("ceil", "floor", "trunc", "sqrt")),
        *(f"torch.sym_{name}" for name in ("float", "int", "max", "min", "not", "ite", "sum")),
    }
)  # fmt: skip
_TREE_TYPES: Final = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_MAX_TREE_BYTES: Final = 1 << 20


def _by_pattern(pattern: re.Pattern[str]) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not pattern.fullmatch(text):
            raise UnsafeModel(f"The program holds the text {text[:100]!r} where a name belongs.", reason="pt2_name")

    return check


def check_operator(target: str) -> None:
    """Raises ``UnsafeModel`` unless ``target`` is an aten operator without files, or plain arithmetic."""
    found = _ATEN.fullmatch(target)
    allowed = _is_operator(*found.groups()) if found else target in _PLAIN_FUNCTIONS
    if not allowed:
        raise UnsafeModel(
            f"The program calls {target[:200]!r}, which is no operator of torch's own aten library.",
            reason="pt2_operator",
            hint="Export with exported_program.run_decompositions(), without custom operators.",
        )


def _is_operator(name: str, overload: str) -> bool:
    """Whether torch knows the operator; anything else found by these names would be some attribute of its wrappers."""
    if name in _REFUSED_OPERATORS or "unsafe_tensor" in name:
        return False
    return isinstance(getattr(getattr(torch.ops.aten, name, None), overload, None), OpOverload)


def check_tree(text: str) -> None:
    """Raises ``UnsafeModel`` unless ``text`` describes tuples, lists and dictionaries only."""
    if len(text) > _MAX_TREE_BYTES:
        raise InvalidModel("The description of inputs or outputs is too long.", reason="pt2_treespec")
    document = parse_json(text.encode(), InvalidModel)
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise InvalidModel("Inputs or outputs are described in an unknown way.", reason="pt2_treespec")
    waiting: list[Any] = [document[1]]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or not isinstance(node.get("children_spec"), list):
            raise InvalidModel("Inputs or outputs are described in an unknown way.", reason="pt2_treespec")
        _check_container(node.get("type"), node.get("context"))
        waiting.extend(node["children_spec"])


def _check_container(kind: Any, context: Any) -> None:
    if kind is None and context is None:
        return
    if kind not in _TREE_TYPES:
        raise UnsafeModel(
            f"Inputs or outputs are of type {str(kind)[:100]!r}; only tuples, lists and dictionaries are accepted.",
            reason="pt2_treespec",
            hint="Let the exported module return a tensor, a tuple or a dictionary.",
        )
    keys = json.loads(context) if isinstance(context, str) and len(context) < _MAX_TREE_BYTES else None
    if isinstance(keys, list) and not all(type(key) in (str, int) for key in keys):
        raise UnsafeModel("A dictionary of inputs or outputs has keys of an unusual kind.", reason="pt2_treespec")
    if keys is not None and not isinstance(keys, list):
        raise UnsafeModel("A container of inputs or outputs is described in an unusual way.", reason="pt2_treespec")


TEXT_RULES: Final[dict[str, Callable[[str], None]]] = {
    "name": _by_pattern(IDENTIFIER),
    "as_name": _by_pattern(IDENTIFIER),
    "forward_arg_names": _by_pattern(IDENTIFIER),
    "parameter_name": _by_pattern(DOTTED_NAME),
    "buffer_name": _by_pattern(DOTTED_NAME),
    "tensor_constant_name": _by_pattern(DOTTED_NAME),
    "as_string": _by_pattern(_WORDS),
    "as_strings": _by_pattern(_WORDS),
    "fqn": _by_pattern(re.compile("")),
    "type": _by_pattern(re.compile("cpu")),
    "verifiers": _by_pattern(re.compile(r"[A-Z_]{1,30}")),
    "torch_version": _by_pattern(_VERSION),
    "target": check_operator,
    "expr_str": check_expression,
    "in_spec": check_tree,
    "out_spec": check_tree,
}
