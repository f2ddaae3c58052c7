"""Brings tensors that an archive keeps beside the model into the model.

Only for files that our own extractor wrote into a fresh folder: there are no links in it, and each location must be a
plain name there. onnxruntime once read what a hard link pointed to, hence the link count.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto

from workers.compression.families.onnx.walking import subgraphs
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_EMBEDDED_BYTES = (2 << 30) - (16 << 20)

_PLAIN_NAME = re.compile(r"[\w\-][\w.\-]{0,254}")
_KEYS = frozenset({"location", "offset", "length", "checksum"})


def embed(proto: ModelProto, folder: Path) -> int:
    """Moves external data below ``folder`` into ``proto``; returns how many bytes that were."""
    total = 0
    for tensor in _tensors(proto.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        path, offset, length = _located(tensor, folder)
        total += length
        if total > MAX_EMBEDDED_BYTES:
            raise TooLarge("With its data inside, the model passes 2 GiB, the limit of ONNX files.")
        tensor.raw_data = _read(path, offset, length, tensor)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return total


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for nested in subgraphs(node):
            yield from _tensors(nested)


def _located(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not _PLAIN_NAME.fullmatch(location) or not entries.keys() <= _KEYS:
        raise UnsafeModel(
            f"Tensor {tensor.name[:200]!r} names data that is no plain file beside the model.",
            reason="onnx_external_data",
        )
    path = folder / location
    try:
        status = os.lstat(path)
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    except (OSError, ValueError) as error:
        raise InvalidModel(
            f"The data file {location!r} of tensor {tensor.name[:200]!r} is missing or misdescribed.",
            reason="onnx_external_data",
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise UnsafeModel(f"The data file {location!r} is a link.", reason="onnx_external_data")
    length = status.st_size - offset if length < 0 else length
    if offset < 0 or length < 0 or offset + length > status.st_size:
        raise InvalidModel(
            f"Tensor {tensor.name[:200]!r} lies outside its data file {location!r}.", reason="onnx_external_data"
        )
    return path, offset, length


def _read(path: Path, offset: int, length: int, tensor: TensorProto) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        raise InvalidModel(f"The data of tensor {tensor.name[:200]!r} ends early.", reason="onnx_external_data")
    return data
