"""``python -m workers.compression expand MODEL --output FILE``: a self-expanding ONNX file made dense."""

import argparse
import sys
import tempfile
from pathlib import Path

from workers.compression.context import Context
from workers.compression.families.onnx.expanding import expand
from workers.compression.families.onnx.family import open_model
from workers.compression.specs.errors import EngineError


def main(arguments: list[str]) -> int:
    """Command line of the expansion; 0 when the dense file is written, 1 with the reason if not."""
    parser = argparse.ArgumentParser(prog="pressroom expand", description="Store packed weights densely.")
    parser.add_argument("model", type=Path, help="ONNX file whose weights are packed")
    parser.add_argument("--output", type=Path, required=True, help="the dense ONNX file")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="pressroom-expand-") as folder:
            model = open_model(options.model, Context(scratch=Path(folder)))
        count = expand(model.proto)
    except EngineError as error:
        sys.stderr.write(f"{error.code}: {error.detail} {error.hint or ''}".rstrip() + "\n")
        return 1
    model.changed()
    model.save(options.output)
    sizes = options.model.stat().st_size, options.output.stat().st_size
    noun = "weight" if count == 1 else "weights"
    sys.stdout.write(f"{count} {noun} expanded: {sizes[0]:,} to {sizes[1]:,} bytes, {options.output}\n")
    return 0
