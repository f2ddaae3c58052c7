"""Image folders with files that are not the images they seem, or far larger."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import Entry, forged_zip, zip_of

IMAGES = Catalogue("images", "dataset", "images.zip")

REASON = "image_*|archive_*"


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 8), value: int = 100) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(out, kind)
    return out.getvalue()


def classes(**extra: bytes) -> dict[str, bytes]:
    """Two classes of three images each, and what else."""
    found = {f"{name}/{index}.png": encoded(value=index * 20) for name in ("cat", "dog") for index in range(3)}
    return found | extra


def with_image(content: bytes, name: str = "cat/9.png") -> bytes:
    return zip_of(classes(**{name: content}))


def png_that_says(width: int, height: int) -> bytes:
    """A PNG header of any size in front of one row of data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@IMAGES.accepted()
def two_classes(_: Path) -> bytes:
    return zip_of(classes())


@IMAGES.accepted()
def three_kinds_of_image_below_one_folder(_: Path) -> bytes:
    kinds = {"a/1.jpg": encoded("JPEG"), "a/2.png": encoded("PNG"), "b/1.webp": encoded("WEBP"), "b/2.png": encoded()}
    return zip_of({f"data/{name}": content for name, content in kinds.items()}, zipfile.ZIP_DEFLATED)


@IMAGES.refused("too_large", "invalid_dataset", reason=REASON)
def png_of_a_terapixel(_: Path) -> bytes:
    return with_image(png_that_says(1 << 20, 1 << 20))


@IMAGES.refused("too_large", "invalid_dataset", reason=REASON)
def png_of_a_hundred_megapixels(_: Path) -> bytes:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    return with_image(out.getvalue())


@IMAGES.refused("invalid_dataset", "unsafe_model", reason=REASON)
def postscript_named_png(_: Path) -> bytes:
    return with_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) (r) file\n%%EOF\n")


@IMAGES.refused("invalid_dataset", READY, reason=REASON)
def vector_graphic_with_an_entity(_: Path) -> bytes:
    content = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>'
    return with_image(content, "cat/9.svg")


@IMAGES.refused("invalid_dataset", "unsafe_model", reason=REASON)
def gif_named_png(_: Path) -> bytes:
    return with_image(encoded("GIF"))


@IMAGES.refused("invalid_dataset", READY, reason=REASON)
def png_cut_off(_: Path) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return with_image(out.getvalue()[:900])


@IMAGES.refused("invalid_dataset", "too_large", reason=REASON)
def text_chunk_that_unfolds_into_a_gigabyte(_: Path) -> bytes:
    body = b"k\x00\x00" + zlib.compress(bytes(64 << 20), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    content = encoded()
    return with_image(content[:33] + chunk + content[33:])


@IMAGES.refused("invalid_dataset", READY, reason=REASON)
def script_among_the_images(_: Path) -> bytes:
    return with_image(b"import os\n", "cat/loader.py")


@IMAGES.refused("invalid_dataset", "unsafe_model", reason=REASON)
def class_that_climbs_out(_: Path) -> bytes:
    return with_image(encoded(), "../../cat/9.png")


@IMAGES.refused("invalid_dataset", "unsafe_model", reason=REASON)
def image_that_is_a_link(_: Path) -> bytes:
    entries = [Entry(name.encode(), content) for name, content in classes().items()]
    return forged_zip([*entries, Entry(b"cat/9.png", b"/etc/passwd", external_attributes=0o120777 << 16)])


@IMAGES.refused("invalid_dataset", "unsupported_format", READY)
def images_without_a_class(_: Path) -> bytes:
    return zip_of({f"{index}.png": encoded() for index in range(3)})


@IMAGES.refused("invalid_dataset", "unsafe_model", reason=REASON)
def classes_that_differ_in_case_only(_: Path) -> bytes:
    return zip_of(classes() | {"CAT/1.png": encoded()})
