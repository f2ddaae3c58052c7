"""Attention and the embeddings before it, as onnxruntime and newer standards fuse them."""

import math

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor


def _heads(x: Tensor, count: int) -> Tensor:
    """[rows, positions, hidden] as [rows, heads, positions, hidden of a head]."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention, [rows, heads, positions, size] each; ``bias`` is added to the scores."""
    factor = scale or 1.0 / math.sqrt(query.shape[-1])
    scores = torch.matmul(query * factor, key.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores if bias is None else scores + bias, -1), value)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _added(*biases: Tensor | None) -> Tensor | None:
    found = [bias for bias in biases if bias is not None]
    return sum(found[1:], found[0]) if found else None


def _causal(query: Tensor, key: Tensor) -> Tensor:
    allowed = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device)
    return torch.zeros_like(allowed, dtype=query.dtype).masked_fill(~allowed.tril(), -math.inf)


def _mask_of_keys(call: Call, mask: Tensor | None, like: Tensor) -> Tensor | None:
    """[rows, keys] of 1 and 0 as what is added to scores."""
    if mask is None:
        return None
    filter_value = call.real("mask_filter_value", -10000.0)
    return ((1 - mask.to(like.dtype)) * filter_value)[:, None, None, :]


def _multi_head_attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None = None,
    padding: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    if bias is not None:
        sizes = [query.shape[-1], key.shape[-1], value.shape[-1]]
        query, key, value = (x + b for x, b in zip((query, key, value), torch.split(bias, sizes), strict=True))
    count = call.integer("num_heads", 1)
    parts = [_heads(x, count) for x in (query, key, value)]
    causal = _causal(parts[0], parts[1]) if call.integer("unidirectional", 0) else None
    masks = _added(_mask_of_keys(call, padding, query), scores, causal)
    return _joined(_attend(parts[0], parts[1], parts[2], call.real("scale", 0.0), masks))


def _packed_attention(
    call: Call,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    _past: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    projected = x @ weights if bias is None else x @ weights + bias
    sizes = call.integers("qkv_hidden_sizes") or [weights.shape[1] // 3] * 3
    query, key, value = (_heads(part, call.integer("num_heads", 1)) for part in torch.split(projected, sizes, -1))
    if mask is not None and mask.ndim == 1:
        positions = torch.arange(x.shape[1], device=mask.device)
        mask = (positions < mask[: x.shape[0], None]).to(mask.dtype)
    causal = _causal(query, key) if call.integer("unidirectional", 0) else None
    return _joined(
        _attend(query, key, value, call.real("scale", 0.0), _added(_mask_of_keys(call, mask, x), scores, causal))
    )


def _standard_attention(call: Call, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    flat = query.ndim == 3
    if flat:
        query = _heads(query, call.integer("q_num_heads", 1))
        key, value = (_heads(x, call.integer("kv_num_heads", 1)) for x in (key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -math.inf)
    causal = _causal(query, key) if call.integer("is_causal", 0) else None
    made = _attend(query, key, value, call.real("scale", 0.0), _added(mask, causal))
    return _joined(made) if flat else made


def _embed(call: Call, tokens: Tensor, segments: Tensor | None, *rest: Tensor | None) -> tuple[Tensor, ...]:
    """``rest``: tables of words, positions and segments, scale, shift, mask, position ids."""
    given: list[Tensor | None] = [*rest, *[None] * (7 - len(rest))]
    words, positions, kinds, scale, shift, mask, places = given
    at = torch.arange(tokens.shape[1], device=tokens.device) if places is None else places
    total = _rows(words, tokens) + _rows(positions, at)
    if segments is not None:
        total = total + _rows(kinds, segments)
    made = F.layer_norm(total, [total.shape[-1]], scale, shift, call.real("epsilon", 1e-12))
    lengths = torch.zeros(len(tokens), dtype=torch.int32, device=tokens.device)
    return made, lengths if mask is None else mask.sum(1, dtype=torch.int32), total


def _rows(table: Tensor | None, indices: Tensor) -> Tensor:
    return torch.zeros(()) if table is None else F.embedding(indices.long(), table)


TABLE: Table = {
    "Attention": _standard_attention,
    "com.microsoft.Attention": _packed_attention,
    "com.microsoft.EmbedLayerNormalization": _embed,
    "com.microsoft.MultiHeadAttention": _multi_head_attention,
}


def _limit_of_standard(call: Call) -> str | None:
    if call.outputs > 1 or not call.given <= {0, 1, 2, 3}:
        return "it keeps or reads keys and values of earlier calls"
    return "its scores are capped" if call.real("softcap", 0.0) else None


def _limit_of_multi_head(call: Call) -> str | None:
    if not {1, 2} <= call.given:
        return "query, key and value are packed into one input"
    return (
        "it keeps or reads keys and values of earlier calls" if call.outputs > 1 or call.given & {6, 7, 8, 9} else None
    )


def _limit_of_packed(call: Call) -> str | None:
    if call.outputs > 1 or call.given & {4, 6}:
        return "it keeps or reads keys and values of earlier calls"
    return "it rotates positions" if call.integer("do_rotary", 0) else None


LIMITS: Limits = {
    "Attention": _limit_of_standard,
    "com.microsoft.Attention": _limit_of_packed,
    "com.microsoft.MultiHeadAttention": _limit_of_multi_head,
}
