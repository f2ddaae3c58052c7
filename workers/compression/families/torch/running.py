"""Running torch modules on arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from workers.compression.families.model import Array, Feeds
from workers.compression.specs.errors import DatasetMismatch, UnsupportedOperator
from workers.compression.specs.messages import Port


def tensors_of(feeds: Feeds, inputs: Sequence[Port]) -> dict[str, torch.Tensor]:
    """The feeds that the model takes, in its order; raises ``DatasetMismatch`` where one is missing."""
    missing = [port.name for port in inputs if port.name not in feeds]
    if missing:
        raise DatasetMismatch(f"The data has nothing for the model's input {missing[0]!r}.")
    # Feeds may be read-only views of a mapped file, of which torch would warn.
    return {port.name: torch.tensor(feeds[port.name]) for port in inputs}


def outputs_of(call: Callable[[], Any]) -> list[Array]:
    """Tensors that ``call`` returns, half precision widened so that figures about them are exact."""
    try:
        with torch.inference_mode():
            found = call()
    except (RuntimeError, IndexError, TypeError, ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UnsupportedOperator(f"The model cannot be run on these inputs: {reason}") from error
    return [_array(tensor) for tensor in found]


def _array(tensor: torch.Tensor) -> Array:
    widened = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
    array: Array = widened.numpy()
    return array


def count_macs(call: Callable[[], Any]) -> int:
    """Multiply-accumulates of matrix products, convolutions and attention in one call."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - an operator's name
    # torch counts attention on other devices only.
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        outputs_of(call)
    return int(counter.get_total_flops()) // 2


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # torch's
