"""A transformer encoder, a CNN and a recurrent network with the rows that 8-bit integers are judged on."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from app.cli.zoo import fetch
from tests import trained
from tests.benchmarks.inputs import minilm_onnx, word_pairs
from workers.compression.data import Dataset, open_dataset, pool
from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile

CALIBRATION_ROWS = 256
SEEDS = 3
SELECTION_SHARE = 3
"""One in this many test images is chosen by."""


@dataclass(frozen=True)
class Case:
    """A network and its data; no row is in two of calibration, selection and what is judged by.

    Args:
        calibrations: Rows to calibrate on, one set a seed.
        selection: Labelled rows to choose by.
        metric: What ``score`` is called.
        feeds: Batches of the rows that it is judged on.
        answer: What a model's outputs for one of them answer, one row each.
        score: The task's metric of such answers on some of the examples, given by their positions.
        examples: How many there are.
        directory: The same network for transformers, where it is one.
    """

    name: str
    path: Path
    calibrations: list[Dataset]
    selection: Dataset
    metric: str
    feeds: Callable[[OnnxModel], Iterator[Feeds]]
    answer: Callable[[list[Array], Feeds], Array]
    score: Callable[[Array, Array], float]
    examples: int
    directory: Path | None = None

    def answers(self, model: OnnxModel) -> Array:
        """Of all rows."""
        return np.concatenate([self.answer(model.run(feeds), feeds) for feeds in self.feeds(model)])


class Recurrent(nn.Module):
    """Reads an image of digits row by row in both directions: 45,834 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.LSTM(8, 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Classes of images (n, 8, 8)."""
        states, _ = self.recurrence(rows)
        return self.head(states[:, -1] + states[:, 0])


@lru_cache
def recurrent() -> nn.Module:
    """The network after a few seconds of training."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Recurrent()
    images, _, labels, _ = trained.digits_split()
    inputs, targets = torch.from_numpy(images.reshape(-1, 8, 8)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(30):
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[rows]), targets[rows]).backward()
            optimizer.step()
    return network.eval()


def write_recurrent(folder: Path) -> Path:
    """The recurrent network as ONNX with an ``LSTM`` operator."""
    path = folder / "lstm.onnx"
    program = torch.onnx.export(
        recurrent(), (torch.zeros(2, 8, 8),), dynamo=True, input_names=["input"], output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    if program is None:
        raise RuntimeError("the exporter gave no program")
    program.save(str(path))
    return path


def sentence_rows(folder: Path, name: str, count: int) -> Dataset:
    """The first 40 words of each line of one of the zoo's texts."""
    lines = (fetch("sentence-pairs") / name).read_text("latin-1").splitlines()
    rows = [" ".join(line.split()[:40]) for line in lines if len(line.split()) > 6][:count]
    return _texts(folder / f"{name}.csv", rows)


def cases(folder: Path) -> Iterator[Case]:
    """All three."""
    yield _minilm(folder)
    for name, path, shape in (
        ("CNN on digits", trained.write_onnx("cnn", folder / "cnn.onnx"), (-1, 1, 8, 8)),
        ("LSTM on digits", write_recurrent(folder), (-1, 8, 8)),
    ):
        yield _digits(folder, name, path, shape)


@dataclass(frozen=True)
class _Similarities:
    """Texts, and what people said of how alike two of them are; ``pairs`` holds (left, right, similarity)."""

    texts: list[str]
    pairs: Array
    by_rank: bool

    def correlation(self, vectors: Array, chosen: Array) -> float:
        """Of the cosines of some pairs with what people said: Spearman's or Pearson's."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        left, right = self.pairs[chosen, 0].astype(int), self.pairs[chosen, 1].astype(int)
        likeness = (unit[left] * unit[right]).sum(axis=1)
        said = self.pairs[chosen, 2]
        found = spearmanr(likeness, said) if self.by_rank else pearsonr(likeness, said)
        return float(found.statistic)


def _words() -> _Similarities:
    with (fetch("sentence-pairs") / "simlex999.txt").open(encoding="utf-8") as lines:
        rows = list(csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t"))
    texts = [row[side] for row in rows for side in (0, 1)]
    pairs = [(2 * number, 2 * number + 1, float(row[2])) for number, row in enumerate(rows)]
    return _Similarities(texts, np.array(pairs), by_rank=True)


def _documents() -> _Similarities:
    """Lee's 50 documents, each compared with each other one."""
    folder = fetch("sentence-pairs")
    said = np.loadtxt(folder / "similarities0-1.txt")
    texts = (folder / "lee.cor").read_text("latin-1").splitlines()
    pairs = [(left, right, said[left, right]) for left in range(50) for right in range(left + 1, 50)]
    return _Similarities(texts, np.array(pairs), by_rank=False)


def _pieces(folder: Path) -> list[Dataset]:
    """For each seed 256 pieces of 40 words of Lee's background documents, none in two of them."""
    documents = [
        line.split() for line in (fetch("sentence-pairs") / "lee_background.cor").read_text("latin-1").splitlines()
    ]
    pieces = [words[start : start + 40] for words in documents for start in range(0, len(words), 40)]
    whole = [" ".join(words) for words in pieces if len(words) > 6]
    order = np.random.default_rng(0).permutation(len(whole))
    drawn = [order[seed * CALIBRATION_ROWS :][:CALIBRATION_ROWS] for seed in range(SEEDS)]
    return [_texts(folder / f"calibration{seed}.csv", [whole[row] for row in rows]) for seed, rows in enumerate(drawn)]


def _texts(path: Path, rows: list[str]) -> Dataset:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([row] for row in rows)])
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.CSV))


def _minilm(folder: Path) -> Case:
    """Chosen by WordSim-353; judged by the mean correlation on SimLex-999 and Lee's documents, and by 192 sentences."""
    tasks = (_words(), _documents())
    written = [text for task in tasks for text in task.texts]
    texts = replace(_texts(folder / "texts.csv", written), order=np.argsort([len(text) for text in written]))
    parts = (texts, sentence_rows(folder, "pang_lee_polarity.cor", 192))

    def feeds(model: OnnxModel) -> Iterator[Feeds]:
        for rows in parts:
            yield from (batch.feeds for batch in rows.batches(model.inputs, 16, model.tokenizer_file()))

    ends = np.cumsum([len(task.texts) for task in tasks])
    pair_ends = np.cumsum([len(task.pairs) for task in tasks])

    def score(vectors: Array, chosen: Array) -> float:
        in_order = vectors[: texts.rows][np.argsort(texts.order)]
        found = []
        for task, end, pair_end in zip(tasks, ends, pair_ends, strict=True):
            start = pair_end - len(task.pairs)
            own = chosen[(chosen >= start) & (chosen < pair_end)] - start
            found.append(task.correlation(in_order[end - len(task.texts) : end], own))
        return float(np.mean(found))

    pairs = DatasetFile(path=str(word_pairs(folder)), format=DatasetFormat.JSONL)
    return Case(
        "all-MiniLM-L6-v2",
        minilm_onnx(folder),
        _pieces(folder),
        open_dataset(pairs),
        "similarity",
        feeds,
        lambda outputs, given: pool(outputs[0], given, "mean"),
        score,
        int(pair_ends[-1]),
        directory=fetch("minilm-l6-hf"),
    )


def _digits(folder: Path, name: str, path: Path, shape: tuple[int, ...]) -> Case:
    """Calibrated on training images; a third of the test images is chosen by, the others are judged by."""
    train, test, _, labels = trained.digits_split()
    images, selected = test.reshape(shape), np.arange(len(test)) % SELECTION_SHARE == 0
    calibrations = [
        _arrays(
            folder / f"{path.stem}{seed}.npz", input=train.reshape(shape)[seed * CALIBRATION_ROWS :][:CALIBRATION_ROWS]
        )
        for seed in range(SEEDS)
    ]
    judged = labels[~selected]
    return Case(
        name,
        path,
        calibrations,
        _arrays(folder / f"{path.stem}-selection.npz", input=images[selected], target=labels[selected]),
        "accuracy",
        lambda model: iter([{"input": images[~selected]}]),
        lambda outputs, given: outputs[0],
        lambda logits, chosen: float(np.mean((logits.argmax(axis=1) == judged)[chosen])),
        len(judged),
    )


def _arrays(path: Path, **arrays: Array) -> Dataset:
    np.savez(path, **arrays)
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.NPZ))
