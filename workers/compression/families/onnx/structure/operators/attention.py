"""What operators relate that are a whole attention: heads with what they consist of."""

import numpy as np

from workers.compression.families.onnx.structure.call import Call, Rule
from workers.compression.families.onnx.structure.edits import Counted
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes
from workers.compression.structure.units import Product

_QUERY, _KEY, _VALUE, _BIAS, _PADDING, _ADDED = range(6)


def _multi_head_attention(call: Call) -> list[Axes]:
    """Queries, keys and values of three axes each, the last of which holds one head after the other."""
    operands = [call.axes(slot) for slot in (_QUERY, _KEY, _VALUE)]
    further = any(call.has(slot) for slot in range(_ADDED + 1, len(call.place.node.input)))
    if further or any(len(axes) != 3 for axes in operands):
        raise Unrelated
    call.expect_one_output()
    heads = call.relations.fresh(call.integer("num_heads", 1))
    for axes in operands:
        call.relations.link(axes[2], np.repeat(heads, len(axes[2]) // max(len(heads), 1)))
    query, key, value = operands
    call.relations.lock(key[1], value[1])
    if call.has(_BIAS):
        call.relations.link(call.axes(_BIAS)[0], np.concatenate([axes[2] for axes in operands]))
    if call.has(_PADDING):
        call.relations.lock(*call.axes(_PADDING))
    if call.has(_ADDED):
        added = call.axes(_ADDED)
        call.relations.broadcast([added[1:2], (heads,)])
        call.relations.lock(added[0], *added[2:])
    call.relations.attention.append(heads)
    call.edit(Counted(call.place, "num_heads", heads))
    rows = len(query[0]) * len(query[1]) * len(key[1])
    call.relations.products += [Product(rows, (query[2],)), Product(rows, (value[2],))]
    return [(query[0], query[1], value[2])]


ATTENTION: dict[str, Rule] = {"com.microsoft.MultiHeadAttention": _multi_head_attention}
