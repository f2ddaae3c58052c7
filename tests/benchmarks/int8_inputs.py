"""A transformer encoder, a CNN and a recurrent network with the rows that 8-bit integers are judged on."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from app.cli.zoo import fetch
from tests import trained
from tests.benchmarks.inputs import minilm_onnx
from workers.compression.data import Dataset, open_dataset, pool
from workers.compression.families.model import Array
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile

CALIBRATION_ROWS = 256


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Args:
        metric: What ``score`` is called.
        answers: Outputs on the rows that it is judged on, one row each.
        score: The task's metric of such outputs on some of the examples, given by their positions.
        examples: How many there are.
    """

    name: str
    path: Path
    calibration: Dataset
    metric: str
    answers: Callable[[OnnxModel], Array]
    score: Callable[[Array, Array], float]
    examples: int
    is_transformer: bool = False


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
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([row] for row in rows)])
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.CSV))


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


def _words(name: str) -> _Similarities:
    with (fetch("sentence-pairs") / name).open(encoding="utf-8") as lines:
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


def _minilm(folder: Path) -> Case:
    """Judged by the mean correlation over three sets of pairs, and by 192 sentences besides."""
    tasks = (_words("wordsim353.tsv"), _words("simlex999.txt"), _documents())
    path = folder / "texts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for task in tasks for text in task.texts)])
    texts = open_dataset(DatasetFile(path=str(path), format=DatasetFormat.CSV))
    parts = (texts, sentence_rows(folder, "pang_lee_polarity.cor", 192))

    def answers(model: OnnxModel) -> Array:
        found = [
            pool(model.run(batch.feeds)[0], batch.feeds, "mean")
            for rows in parts
            for batch in rows.batches(model.inputs, 16, model.tokenizer_file())
        ]
        return np.concatenate(found)

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

    calibration = sentence_rows(folder, "lee_background.cor", CALIBRATION_ROWS)
    name, pairs = "all-MiniLM-L6-v2", int(pair_ends[-1])
    return Case(name, minilm_onnx(folder), calibration, "similarity", answers, score, pairs, is_transformer=True)


def _digits(folder: Path, name: str, path: Path, shape: tuple[int, ...]) -> Case:
    train, test, _, labels = trained.digits_split()
    rows = folder / f"{path.stem}.npz"
    np.savez(rows, input=train.reshape(shape)[:CALIBRATION_ROWS])
    images = test.reshape(shape)
    return Case(
        name,
        path,
        open_dataset(DatasetFile(path=str(rows), format=DatasetFormat.NPZ)),
        "accuracy",
        lambda model: model.run({"input": images})[0],
        lambda logits, chosen: float(np.mean((logits.argmax(axis=1) == labels)[chosen])),
        len(labels),
    )
