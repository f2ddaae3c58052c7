"""One vector per text from the hidden states of its tokens."""

from collections.abc import Mapping

import numpy as np

from workers.compression.datasets.source import Array


def pool(output: Array, feeds: Mapping[str, Array], how: str) -> Array:
    """Hidden states [n, tokens, width] as vectors [n, width]; anything else comes back as it is.

    Args:
        output: One output of the model.
        feeds: What the model was fed; ``attention_mask`` [n, tokens] tells padding apart.
        how: ``mean`` over the tokens that are not padding, ``cls`` (the first token) or ``none``.
    """
    mask = feeds.get("attention_mask")
    tokens = mask if mask is not None else feeds.get("input_ids")
    if how == "none" or tokens is None or output.ndim != 3 or output.shape[:2] != tokens.shape:
        return output
    if how == "cls":
        return output[:, 0]
    weights = (np.ones(tokens.shape) if mask is None else mask).astype(np.float64)[:, :, None]
    pooled = (output.astype(np.float64) * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    return np.asarray(pooled.astype(output.dtype))
