"""The evidence's rows of bare tensors in few bits, and the peers they are held against."""

from collections.abc import Callable
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file

from app.cli.zoo import fetch
from tests.benchmarks import peers
from tests.benchmarks.rows import MINILM, SYNTHETIC, Row

WEIGHT_ONLY = {"technique": "quantize", "method": "weight_only"}
BFLOAT16 = {"technique": "quantize", "method": "bfloat16"}
FLOAT8 = {"technique": "quantize", "method": "float8"}
SMALLEST = 128
Stored = dict[str, torch.Tensor]
Form = Callable[[torch.Tensor], tuple[Stored, torch.Tensor]]


def _tensors(folder: Path) -> Path:
    return fetch("minilm-l6-hf") / "model.safetensors"


def _all(subject: peers.Subject, form: Form) -> peers.Figures:
    """What becomes of all matrices; other tensors stay as they are."""
    stored, cosines = {}, []
    for name, tensor in load_file(subject.model).items():
        if tensor.dim() < 2 or tensor.numel() < SMALLEST or not tensor.is_floating_point():
            stored[name] = tensor
            continue
        parts, restored = form(tensor)
        stored |= {f"{name}{suffix}": part.contiguous() for suffix, part in parts.items()}
        cosines.append(torch.cosine_similarity(tensor.flatten().double(), restored.flatten().double(), dim=0).item())
    output = subject.folder / "peer.safetensors"
    save_file(stored, output)
    return peers.Figures(output.stat().st_size, min(cosines), min(cosines))


def compressed_tensors_int4(subject: peers.Subject) -> peers.Figures:
    """compressed-tensors' own rounding, asymmetric 4 bits in groups of 32, its packing, scales as float16."""
    arguments = QuantizationArgs(num_bits=4, symmetric=False, strategy="group", group_size=32)

    def form(tensor: torch.Tensor) -> tuple[Stored, torch.Tensor]:
        groups = tensor.reshape(len(tensor), -1, 32)
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
        scale = scale.half().float()
        integers = quantize(tensor, scale, zero, arguments, dtype=torch.int8)
        parts = {
            "_packed": pack_to_int32(integers, 4),
            "_scale": scale.half(),
            "_zero_point": pack_to_int32(zero.to(torch.int8), 4, packed_dim=0),
        }
        return parts, dequantize(integers, scale, zero, arguments)

    return _all(subject, form)


def compressed_tensors_float8(subject: peers.Subject) -> peers.Figures:
    """compressed-tensors' own rounding to float8 e4m3, a scale per channel."""
    arguments = QuantizationArgs(num_bits=8, type="float", symmetric=True, strategy="channel")

    def form(tensor: torch.Tensor) -> tuple[Stored, torch.Tensor]:
        scale, zero = calculate_qparams(tensor.amin(1, keepdim=True), tensor.amax(1, keepdim=True), arguments)
        numbers = quantize(tensor, scale, zero, arguments, dtype=torch.float8_e4m3fn)
        return {"": numbers, "_scale": scale}, dequantize(numbers, scale, None, arguments)

    return _all(subject, form)


def torch_bfloat16(subject: peers.Subject) -> peers.Figures:
    """``bfloat16()`` on every matrix and ``save_file``."""

    def form(tensor: torch.Tensor) -> tuple[Stored, torch.Tensor]:
        return {"": tensor.bfloat16()}, tensor.bfloat16()

    return _all(subject, form)


ROWS = (
    Row(
        WEIGHT_ONLY, f"{MINILM}, safetensors", _tensors, SYNTHETIC, None, "fidelity",
        "compressed-tensors, 4 bits in groups of 32, asymmetric", compressed_tensors_int4,
    ),
    Row(
        FLOAT8, f"{MINILM}, safetensors", _tensors, SYNTHETIC, None, "fidelity",
        "compressed-tensors, float8 e4m3 per channel", compressed_tensors_float8,
    ),
    Row(
        BFLOAT16, f"{MINILM}, safetensors", _tensors, SYNTHETIC, None, "fidelity",
        "torch bfloat16() and save_file", torch_bfloat16,
    ),
)  # fmt: skip
