"""All operators that can be trained through."""

from collections.abc import Mapping
from itertools import chain

from workers.compression.families.onnx.training.operators import (
    attention,
    convolutions,
    elementwise,
    indexing,
    normalization,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    shapes,
)
from workers.compression.families.onnx.training.operators.call import Function, Limit

_KINDS = (
    ("Element by element", elementwise),
    ("Shapes", shapes),
    ("Indexing", indexing),
    ("Reductions", reductions),
    ("Products", products),
    ("Convolutions", convolutions),
    ("Pooling", pooling),
    ("Resizing", resizing),
    ("Normalization and softmax", normalization),
    ("Attention", attention),
    ("Recurrences", recurrent),
)

OPERATORS: Mapping[str, Function] = dict(chain(*(module.TABLE.items() for _, module in _KINDS)))
LIMITS: Mapping[str, Limit] = dict(chain(*(module.LIMITS.items() for _, module in _KINDS)))
HOST_SLOTS = shapes.HOST_SLOTS


def supported_operators() -> dict[str, tuple[str, ...]]:
    """Names of the operators that training serves, by kind; those of onnxruntime begin with their domain."""
    return {kind: tuple(sorted(module.TABLE)) for kind, module in _KINDS}
