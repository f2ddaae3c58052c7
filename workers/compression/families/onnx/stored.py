"""Checks of a single stored tensor: its bytes are inside the file and are exactly as many as its dims say."""

import math

from onnx import SparseTensorProto, TensorProto, helper

from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_RANK = 32
MAX_DENSE_BYTES = 1 << 30

_BITS: dict[int, int] = {
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    TensorProto.UINT2: 2,
    TensorProto.INT2: 2,
}


def check_tensor(tensor: TensorProto) -> None:
    """Raises ``UnsafeModel`` for data outside the file, ``InvalidModel`` where dims and data disagree."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise UnsafeModel(
            f"Tensor {tensor.name[:200]!r} keeps its data outside the file.",
            reason="onnx_external_data",
            hint="Upload a zip that holds model.onnx and its data file.",
        )
    count = element_count(tensor)
    if tensor.HasField("segment") or tensor.data_type not in TensorProto.DataType.values():
        raise _mismatch(tensor, "has an unknown data type or is segmented")
    if tensor.HasField("raw_data"):
        _check_raw(tensor, count)
    else:
        _check_typed(tensor, count)


def element_count(tensor: TensorProto) -> int:
    """Product of the dims as an unbounded integer; raises ``InvalidModel`` for negative dims."""
    if len(tensor.dims) > MAX_RANK or any(dim < 0 for dim in tensor.dims):
        raise _mismatch(tensor, "has negative or too many dims")
    return math.prod(tensor.dims)


def check_sparse_tensor(sparse: SparseTensorProto) -> None:
    """Like ``check_tensor`` for both parts; bounds the size that the runtime would expand it to."""
    check_tensor(sparse.values)
    check_tensor(sparse.indices)
    if any(dim < 0 for dim in sparse.dims):
        raise _mismatch(sparse.values, "has negative dims")
    if math.prod(sparse.dims) * 8 > MAX_DENSE_BYTES:
        raise TooLarge(
            f"Sparse tensor {sparse.values.name[:200]!r} is too large once dense.", reason="onnx_value_too_large"
        )


def _check_raw(tensor: TensorProto, count: int) -> None:
    if tensor.data_type in {TensorProto.STRING, TensorProto.UNDEFINED}:
        raise _mismatch(tensor, "may not be stored as raw bytes")
    bits = _BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    expected = (count * bits + 7) // 8
    if len(tensor.raw_data) != expected:
        raise _mismatch(tensor, f"should have {expected} bytes by its dims and has {len(tensor.raw_data)}")


def _check_typed(tensor: TensorProto, count: int) -> None:
    if tensor.data_type == TensorProto.UNDEFINED:
        raise _mismatch(tensor, "has no data type")
    field = helper.tensor_dtype_to_field(tensor.data_type)
    stored = len(getattr(tensor, field))
    if tensor.data_type in {TensorProto.COMPLEX64, TensorProto.COMPLEX128}:
        count *= 2
    elif tensor.data_type in _BITS:
        per_byte = 8 // _BITS[tensor.data_type]
        count = (count + per_byte - 1) // per_byte
    if stored != count:
        raise _mismatch(tensor, f"should have {count} values by its dims and has {stored}")


def _mismatch(tensor: TensorProto, problem: str) -> InvalidModel:
    return InvalidModel(f"Tensor {tensor.name[:200]!r} {problem}.", reason="onnx_invalid")
