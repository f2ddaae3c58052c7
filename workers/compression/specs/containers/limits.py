"""How much of anything a file may hold, and which errors say that it holds too much or lies."""

from dataclasses import dataclass

from workers.compression.specs.errors import EngineError, InvalidDataset, InvalidModel, UnsafeModel


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds of an archive; ratios count only beyond ``ratio_free_bytes``, for small files may compress to nothing."""

    max_entries: int = 10_000
    max_bytes: int = 20 << 30
    max_depth: int = 8
    max_ratio: int = 100
    ratio_free_bytes: int = 10 << 20
    max_directory_bytes: int = 64 << 20


@dataclass(frozen=True)
class Refusals:
    """Errors for content that reaches outside or hides (``unsafe``) and for malformed content (``invalid``)."""

    unsafe: type[EngineError]
    invalid: type[EngineError]


MODEL_REFUSALS = Refusals(unsafe=UnsafeModel, invalid=InvalidModel)
DATASET_REFUSALS = Refusals(unsafe=InvalidDataset, invalid=InvalidDataset)

ARCHIVE_LIMITS = ArchiveLimits()
CHECKPOINT_LIMITS = ArchiveLimits(max_entries=60_000)
SKOPS_LIMITS = ArchiveLimits(max_entries=60_000, max_bytes=500 << 20)
NPZ_LIMITS = ArchiveLimits(max_entries=1_000, max_bytes=2 << 30)
IMAGE_LIMITS = ArchiveLimits(max_entries=100_000)
