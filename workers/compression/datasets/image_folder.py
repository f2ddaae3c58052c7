"""Images in a ZIP, one folder per class; decoded batch by batch, never unpacked to disk."""

import io
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from workers.compression.datasets.columns import parse_labels
from workers.compression.datasets.source import Array, Arrays, Rows, Source, check_rows
from workers.compression.specs.containers.archive_kinds import IMAGE_SUFFIXES
from workers.compression.specs.containers.entry_names import is_nested_archive, refuse_entry
from workers.compression.specs.containers.limits import DATASET_REFUSALS, IMAGE_LIMITS
from workers.compression.specs.containers.zip_rules import checked_entries
from workers.compression.specs.errors import InvalidDataset, TooLarge
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import Port

MAX_PIXELS = 25_000_000
MAX_IMAGE_BYTES = 64 << 20
_FORMATS = ["PNG", "JPEG", "WEBP"]


def open_source(path: Path, fields: DatasetFields) -> Source:
    """Lists the images; the label is the name of an image's folder, if there is more than one folder.

    Raises:
        InvalidDataset: ``image_invalid``, ``archive_entry_refused``, ``target_missing``.
        TooLarge: ``image_too_large``, ``archive_bomb``.
    """
    if fields.target_column is not None:
        raise InvalidDataset("Images have no columns: their folder is the label.", reason="target_missing")
    names, skipped = _image_names(path)
    check_rows(len(names))
    folders = [PurePosixPath(name).parent.name for name in names]
    if "" in folders and set(folders) != {""}:
        raise InvalidDataset("Some images lie in a folder and some do not.", reason="image_invalid")
    # Opened once: reading the directory of a large archive anew for each batch takes longer than its images.
    archive = zipfile.ZipFile(path)
    notes = (f"{skipped} files that are no images were left out.",) if skipped else ()

    def read(chosen: Rows) -> Arrays:
        encoded = np.empty(len(chosen), dtype=object)
        for index, row in enumerate(chosen):
            encoded[index] = _read_entry(archive, names[row])
        return {"image": encoded}

    return Source(
        format=DatasetFormat.IMAGE_FOLDER,
        rows=len(names),
        features=(Port(name="image", shape=(len(names), "height", "width", "channels"), dtype="uint8"),),
        read=read,
        target=parse_labels(folders) if len(set(folders)) > 1 else None,
        target_name="folder",
        integer_labels=True,
        verify=lambda: _check_images(archive, names),
        warnings=notes,
    )


def _check_images(archive: zipfile.ZipFile, names: list[str]) -> None:
    """Reads the head of every image and decodes none: format and size are as they should be."""
    for name in names:
        open_image(_read_entry(archive, name)).close()


def open_image(encoded: bytes) -> Image.Image:
    """The image, its pixels not decoded yet, its size checked.

    The formats are named because the library would else open anything it knows under any name, PostScript included.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TooLarge("An image has too many pixels.", reason="image_too_large") from error
    except (OSError, ValueError, SyntaxError, zlib.error) as error:
        raise InvalidDataset("An image is no PNG, JPEG or WebP.", reason="image_invalid") from error
    if image.width * image.height > MAX_PIXELS:
        raise TooLarge(f"An image has more than {MAX_PIXELS} pixels.", reason="image_too_large")
    return image


def decode(encoded: bytes, channels: int, size: tuple[int, int] | None) -> Array:
    """Pixels [height, width, channels] as uint8, resized bilinearly to ``size`` (height, width)."""
    image = open_image(encoded)
    try:
        pixels = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, zlib.error) as error:
        raise InvalidDataset("An image is damaged.", reason="image_invalid") from error
    if size is not None and (pixels.height, pixels.width) != size:
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(pixels.height, pixels.width, channels)


def _image_names(path: Path) -> tuple[list[str], int]:
    """Names of the images in order, and how many other files there are."""
    names: list[str] = []
    skipped = 0
    for entry in checked_entries(path, IMAGE_LIMITS, DATASET_REFUSALS):
        if is_nested_archive(entry.filename, b""):
            raise refuse_entry(entry.filename, "is itself an archive", DATASET_REFUSALS)
        if not entry.filename.lower().endswith(IMAGE_SUFFIXES) or entry.filename.startswith("__MACOSX/"):
            skipped += 1
            continue
        if entry.file_size > MAX_IMAGE_BYTES:
            raise TooLarge(f"An image file is larger than {MAX_IMAGE_BYTES} bytes.", reason="image_too_large")
        names.append(entry.filename)
    return sorted(names), skipped


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InvalidDataset("An image's archive entry is damaged.", reason="archive_invalid") from error
