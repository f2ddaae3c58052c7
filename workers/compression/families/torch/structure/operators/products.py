"""What convolutions, matrix products and attention relate."""

import numpy as np

from workers.compression.families.torch.pt2_readers import is_transposed
from workers.compression.families.torch.structure.call import Call, Rule
from workers.compression.structure.network import Unrelated
from workers.compression.structure.relations import Axes


def _convolution(call: Call) -> list[Axes]:
    image, kernel, groups = call.axes("input"), call.axes("weight"), call.integers("groups")[0]
    if len(image) != len(kernel):
        raise Unrelated  # a single image without an axis of rows
    bias = next(iter(call.optional("bias")), None)
    transposed = is_transposed(call.node)
    if groups > 1 and (transposed or len(kernel[1]) == 1):
        call.counted("groups", image[1])
    relate = call.network.transposed_convolution if transposed else call.network.convolution
    return [relate(image, kernel, bias, call.shape(), groups)]


def _linear(call: Call) -> list[Axes]:
    weight = call.axes("weight")
    if len(weight) != 2:
        raise Unrelated
    result = call.network.product(call.axes("input"), weight[::-1], (False, call.is_weight("weight")))
    return [call.network.broadcast([result, *call.optional("bias")])]


def _product(call: Call) -> list[Axes]:
    return [_between(call, "self", "other" if call.has("other") else "mat2")]


def _product_and_sum(call: Call) -> list[Axes]:
    names = ("mat1", "mat2") if call.has("mat1") else ("batch1", "batch2")
    return [call.network.broadcast([_between(call, *names), call.axes("self")])]


def _between(call: Call, left: str, right: str) -> Axes:
    return call.network.product(call.axes(left), call.axes(right), (call.is_weight(left), call.is_weight(right)))


def _attention(call: Call) -> list[Axes]:
    """A product of queries and keys, a softmax, and a product with values."""
    query, key, value = (call.axes(name) for name in ("query", "key", "value"))
    if call.has("enable_gqa") and call.argument("enable_gqa"):
        query, key, value = _grouped(call, query, key, value)
    scores = call.network.product(query, (*key[:-2], key[-1], key[-2]), (False, False))
    scores = call.network.broadcast([scores, *call.optional("attn_mask")])
    call.network.lock(scores[-1])
    return [call.network.product(scores, value, (False, False))]


def _grouped(call: Call, query: Axes, key: Axes, value: Axes) -> tuple[Axes, Axes, Axes]:
    """A head of keys and values serves several heads of queries that follow each other."""
    times = len(query[-3]) // max(len(key[-3]), 1)
    heads = np.repeat(key[-3], times)
    call.network.link(key[-3], value[-3])
    return query, (*key[:-3], heads, *key[-2:]), (*value[:-3], heads, *value[-2:])


_CONVOLUTIONS = """convolution conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"""

PRODUCTS: dict[str, Rule] = {
    **dict.fromkeys(_CONVOLUTIONS.split(), _convolution),
    "linear": _linear,
    **dict.fromkeys(("mm", "bmm", "matmul"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _product_and_sum),
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
}
