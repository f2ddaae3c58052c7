"""``pressroom pack`` and ``pressroom unpack``: archives on the command line."""

import argparse
import sys
from pathlib import Path

from workers.compression.archive.packing import pack
from workers.compression.archive.unpacking import MAX_BYTES, unpack
from workers.compression.specs.errors import EngineError

ENDING = ".prsz"


def main_pack(arguments: list[str]) -> int:
    """Packs one file; 0 when the archive is written."""
    parser = argparse.ArgumentParser(prog="pressroom pack", description="Store a model file at its entropy.")
    parser.add_argument("file", type=Path, help="any model file, best one that Pressroom made")
    parser.add_argument("--output", type=Path, help="the archive; by default the file's name and .prsz")
    options = parser.parse_args(arguments)
    target = options.output or options.file.with_name(options.file.name + ENDING)
    try:
        packed = pack(options.file, target)
    except OSError as error:
        return _fail(str(error))
    sys.stdout.write(f"{packed.original:,} to {packed.archive:,} bytes, {target}\n")
    return 0


def main_unpack(arguments: list[str]) -> int:
    """Unpacks one archive; 0 when the file is written, 1 with the reason if not."""
    parser = argparse.ArgumentParser(prog="pressroom unpack", description="Give back the file that was packed.")
    parser.add_argument("archive", type=Path, help="a .prsz file")
    parser.add_argument("--output", type=Path, help="the file to write; by default the archive's name without .prsz")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, help="refuse archives of larger files")
    options = parser.parse_args(arguments)
    if options.output is None and options.archive.suffix != ENDING:
        return _fail(f"The name does not end in {ENDING}: say with --output what to write.")
    target = options.output or options.archive.with_suffix("")
    try:
        size = unpack(options.archive, target, options.max_bytes)
    except EngineError as error:
        return _fail(f"{error.code}: {error.detail} {error.hint or ''}".rstrip())
    except OSError as error:
        return _fail(str(error))
    sys.stdout.write(f"{size:,} bytes, {target}\n")
    return 0


def _fail(why: str) -> int:
    sys.stderr.write(f"{why}\n")
    return 1
