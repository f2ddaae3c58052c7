"""Matrix products."""

import torch

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor
from workers.compression.families.onnx.training.operators.convolutions import activated, limit_of_activation


def _matmul(_: Call, left: Tensor, right: Tensor) -> Tensor:
    return torch.matmul(left, right)


def _gemm(call: Call, left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    left = left.T if call.integer("transA", 0) else left
    right = right.T if call.integer("transB", 0) else right
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    product = left @ right
    product = product if alpha == 1.0 else alpha * product
    if added is None:
        return product
    return product + (added if beta == 1.0 else beta * added)


def _fused_gemm(call: Call, left: Tensor, right: Tensor, added: Tensor | None = None) -> Tensor:
    return activated(call, _gemm(call, left, right, added))


def _fused_matmul(call: Call, left: Tensor, right: Tensor) -> Tensor:
    left = left.mT if call.integer("transA", 0) and left.ndim > 1 else left
    right = right.mT if call.integer("transB", 0) and right.ndim > 1 else right
    return call.real("alpha", 1.0) * torch.matmul(left, right)


def _einsum(call: Call, *inputs: Tensor) -> Tensor:
    return torch.einsum(call.text("equation", ""), *inputs)


TABLE: Table = {
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "com.microsoft.FusedGemm": _fused_gemm,
    "com.microsoft.FusedMatMul": _fused_matmul,
    "com.microsoft.TransposeMatMul": _fused_matmul,
}


def _limit_of_fused_matmul(call: Call) -> str | None:
    swapped = call.integer("transBatchA", 0) or call.integer("transBatchB", 0)
    return "it swaps batch axes" if swapped else None


LIMITS: Limits = {
    "com.microsoft.FusedGemm": limit_of_activation,
    "com.microsoft.FusedMatMul": _limit_of_fused_matmul,
    "com.microsoft.TransposeMatMul": _limit_of_fused_matmul,
}
