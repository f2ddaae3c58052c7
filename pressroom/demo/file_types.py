"""Files of this machine as labelled data for Magika, the network that tells a file's type from its bytes.

The label of a file is its extension's type; Magika sees only the content. Features as the model's configuration says:
the first and last 1024 bytes without surrounding white space, padded with 256.
"""

import json
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

TYPES = {
    ".c": "c",
    ".css": "css",
    ".csv": "csv",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".js": "javascript",
    ".json": "json",
    ".npy": "npy",
    ".npz": "npz",
    ".png": "png",
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".rst": "rst",
    ".so": "elf",
    ".svg": "svg",
    ".toml": "toml",
    ".ttf": "ttf",
    ".xml": "xml",
    ".yaml": "yaml",
    ".zip": "zip",
}
FILES_PER_TYPE = 16
SMALLEST_FILE = 64
Tokens = npt.NDArray[np.int32]


def features(path: Path, configuration: dict[str, int]) -> Tokens:
    """The model's input row [beg_size + end_size] for one file."""
    block, padding = configuration["block_size"], configuration["padding_token"]
    with path.open("rb") as file:
        head = file.read(block).lstrip()[: configuration["beg_size"]]
        file.seek(max(0, path.stat().st_size - block))
        tail = file.read(block).rstrip()[-configuration["end_size"] :]
    row = np.full(configuration["beg_size"] + configuration["end_size"], padding, np.int32)
    row[: len(head)] = np.frombuffer(head, np.uint8)
    row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return row


def labelled_files(roots: list[Path]) -> Iterator[tuple[Path, str]]:
    """Files below ``roots`` with their types, at most ``FILES_PER_TYPE`` of each, spread over the folders."""
    by_type: dict[str, list[Path]] = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.suffix in TYPES and path.is_file() and path.stat().st_size >= SMALLEST_FILE:
                by_type.setdefault(TYPES[path.suffix], []).append(path)
    chooser = random.Random(0)  # noqa: S311 - a repeatable choice of files
    for label, paths in sorted(by_type.items()):
        for path in chooser.sample(paths, min(FILES_PER_TYPE, len(paths))):
            yield path, label


def main(configuration_file: Path, target: Path) -> None:
    """Writes the ``.npz``: array ``bytes`` [n, 2048] int32 and ``target`` [n], the index of the type."""
    configuration = json.loads(configuration_file.read_text("utf-8"))
    types = {label: index for index, label in enumerate(configuration["target_labels_space"])}
    roots = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    found = list(labelled_files(roots))
    rows = np.stack([features(path, configuration) for path, _ in found])
    np.savez(target, bytes=rows, target=np.array([types[label] for _, label in found], np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
