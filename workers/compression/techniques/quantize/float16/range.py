"""Which tensors half precision can hold."""

import torch

from workers.compression.context import Context

LARGEST_HALF = torch.finfo(torch.float16).max


def fits_half(name: str, tensor: torch.Tensor, context: Context) -> bool:
    """Whether no finite value would overflow; if one would, the user is told that the tensor stays as it is."""
    magnitudes = tensor.abs()
    if not bool((magnitudes.isfinite() & (magnitudes > LARGEST_HALF)).any()):
        return True
    context.warn(f"{name} stays {tensor.dtype}: it holds values beyond {LARGEST_HALF:g}.")
    return False
