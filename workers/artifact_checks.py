"""What the supervisor checks about an artifact before it is called a success."""

import re
from pathlib import Path

from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.errors import EngineError, InvalidResult, NothingCompressed
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.metrics import JobMetrics, Layer, Metrics
from workers.compression.specs.recipe import Recipe

MAX_NAME_CHARACTERS = 255
_FORMAT_NAME = re.compile("[a-z0-9_.-]{1,20}")
_NOTICEABLE = 1e-6


def plain_name(name: str, otherwise: str) -> str:
    """The last part of what a child calls a file, short enough to be stored."""
    return Path(name).name[-MAX_NAME_CHARACTERS:] or otherwise


def plain_format(name: str) -> str:
    """``name`` if it is one word as formats are named.

    Raises:
        InvalidResult: it is not.
    """
    if not _FORMAT_NAME.fullmatch(name):
        raise InvalidResult("A file beside the model has no proper format.", reason="output_format")
    return name


def check_format(path: Path, announced: ModelFormat) -> None:
    """The made file has to be what an upload of that format would have to be.

    Raises:
        InvalidResult: it is not.
    """
    try:
        found = sniff_model(path)
    except EngineError as error:
        raise InvalidResult(f"The artifact is refused: {error.detail}", reason=error.reason) from error
    if found != announced:
        raise InvalidResult(f"The artifact is {found.value}, not {announced.value}.", reason="output_format")


def check_something_compressed(recipe: Recipe, metrics: JobMetrics, layers: tuple[Layer, ...]) -> None:
    """Whether a recipe that was to compress did.

    Raises:
        NothingCompressed: the artifact is no smaller, has no other dtypes and no more sparsity.
    """
    if not any(step.compresses for step in recipe):
        return
    before, after = metrics.original, metrics.compressed
    if after.archive_bytes is not None and after.archive_bytes < before.size_bytes:
        return
    if after.size_bytes < before.size_bytes or _fewer_bits(before, after) or _zeros(after) > _zeros(before):
        return
    if any(layer.bytes_after < layer.bytes_before for layer in layers):
        return
    raise NothingCompressed(
        f"The artifact has {after.size_bytes} bytes, the original {before.size_bytes}; "
        "dtypes and sparsity are the same.",
        hint="The steps found nothing to work on: check include and exclude, or choose another technique.",
        step="compare",
    )


def _fewer_bits(before: Metrics, after: Metrics) -> bool:
    return after.bits_per_parameter < before.bits_per_parameter * (1 - _NOTICEABLE)


def _zeros(side: Metrics) -> float:
    """Share of parameters that are zero, pruned ones that are gone altogether not counted."""
    share = 1.0 - side.nonzero_parameters / max(side.parameters, 1)
    return round(share, 6)
