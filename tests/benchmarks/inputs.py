"""Pretrained models and labelled data of the zoo, in the shapes that the engine takes."""

import csv
import json
from pathlib import Path

from app.cli.zoo import fetch
from workers.compression.specs.containers.archives import stored_zip


def minilm_onnx(folder: Path) -> Path:
    """all-MiniLM-L6-v2 as ONNX with external data and its tokenizer, zipped."""
    return _zipped("minilm-l6-onnx", folder)


def minilm_directory(folder: Path) -> Path:
    """all-MiniLM-L6-v2 as a Hugging Face directory, zipped."""
    return _zipped("minilm-l6-hf", folder)


def crepe(folder: Path) -> Path:
    """CREPE tiny, a 1-D convolutional pitch tracker, as a state dict."""
    return fetch("crepe-tiny") / "model.pth"


def word_pairs(folder: Path) -> Path:
    """WordSim-353 as text pairs with a similarity score of 0..10 (Spearman)."""
    source = fetch("sentence-pairs") / "wordsim353.tsv"
    target = folder / "wordsim353.jsonl"
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for row in csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t"):
            out.write(json.dumps({"text_a": row[0], "text_b": row[1], "target": float(row[2])}) + "\n")
    return target


def _zipped(name: str, folder: Path) -> Path:
    target = folder / f"{name}.zip"
    stored_zip(fetch(name), target)
    return target
