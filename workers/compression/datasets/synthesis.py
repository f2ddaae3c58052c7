"""Made-up inputs from nothing but input names, shapes and dtypes: seeded, and harmless to any model."""

import numpy as np

from workers.compression.datasets.source import Array
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.matching import Shape
from workers.compression.specs.messages import Port

_IMAGE_EDGE = 64
_SEQUENCE_LENGTH = 32
_TOKEN_RANGE = (1, 100)
_STATES = ("state", "hidden", "cell", "h0", "c0", "past", "cache")
_SAMPLE_RATES = ("sr", "sample_rate", "sampling_rate")
_MAX_VALUES = 1 << 28


def synthetic_arrays(
    inputs: tuple[Port, ...], rows: int, seed: int, input_shapes: dict[str, tuple[int, ...]], stretch: int = 1
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Arrays with rows first, and constants, both by input name.

    ``input_shapes`` gives the length of every axis, or of every axis but the one that counts rows; a dynamic axis that
    it leaves out gets a customary length times ``stretch``.
    """
    random = np.random.default_rng(seed)
    features: dict[str, Array] = {}
    constants: dict[str, Array] = {}
    for port in inputs:
        if not port.shape:
            constants[port.name] = _values(port, (), random)
            continue
        sample = _sample_shape(port, input_shapes.get(port.name), stretch)
        if rows * int(np.prod(sample)) > _MAX_VALUES:
            raise DatasetMismatch(f"Made-up values for input {port.name} would not fit into memory.")
        features[port.name] = _values(port, (rows, *sample), random)
    return features, constants


def _row_axis(shape: Shape) -> int:
    """The axis that counts rows when nothing but the shape is known: see ``specs.matching.batch_axis``."""
    if isinstance(shape[0], str) or shape[0] in (-1, 1):
        return 0
    return next((axis for axis, length in enumerate(shape) if isinstance(length, str) or length < 0), 0)


def _sample_shape(port: Port, given: tuple[int, ...] | None, stretch: int) -> tuple[int, ...]:
    axis = _row_axis(port.shape)
    rest = port.shape[:axis] + port.shape[axis + 1 :]
    if given is not None:
        sample = given[:axis] + given[axis + 1 :] if len(given) == len(port.shape) else given
        fits = len(sample) == len(rest) and all(
            isinstance(wanted, str) or wanted in (-1, length) for wanted, length in zip(rest, sample, strict=True)
        )
        if not fits:
            raise DatasetMismatch(
                f"input_shapes gives {list(given)} for {port.name}, whose shape is {list(port.shape)}.",
                pointer=f"/evaluation/input_shapes/{port.name}",
            )
        return sample
    free = stretch * (_IMAGE_EDGE if len(port.shape) == 4 else _SEQUENCE_LENGTH)
    return tuple(length if isinstance(length, int) and length >= 0 else free for length in rest)


def _values(port: Port, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = np.dtype(port.dtype) if port.dtype in np.sctypeDict else None
    if dtype is None or dtype.kind not in "biuf":
        raise DatasetMismatch(f"Input {port.name} has the type {port.dtype}, for which nothing can be made up.")
    name = port.name.lower()
    if dtype.kind in "iu" and any(rate in name.split(".") for rate in _SAMPLE_RATES):
        return np.full(shape, 16_000, dtype)
    if any(word in name for word in _STATES):
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        return np.asarray(random.standard_normal(shape)).astype(dtype)
    return _whole_numbers(name, shape, random).astype(dtype)


def _whole_numbers(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Small numbers by the customary meaning of the name: an id too large would index out of a table."""
    if "mask" in name:
        return np.ones(shape, np.int64)
    if "type" in name or "segment" in name:
        return np.zeros(shape, np.int64)
    if "position" in name:
        return np.broadcast_to(np.arange(shape[-1] if shape else 1), shape or (1,)).reshape(shape)
    if "length" in name or "len" in name.split("_"):
        return np.ones(shape, np.int64)
    if "id" in name or "token" in name:
        return np.asarray(random.integers(*_TOKEN_RANGE, shape))
    return np.asarray(random.integers(0, 2, shape))
