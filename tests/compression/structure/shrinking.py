"""Models without some of their units, and the same models when just nothing reads those."""

from collections.abc import Callable, Sequence

import numpy as np
from onnx import ModelProto
from torch.export import ExportedProgram

from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.structure.reading import give_vectors_owners, read_structure
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.structure.reading import read_structure as read_program
from workers.compression.families.weights import CompressibleModel
from workers.compression.structure.compensation import without_columns
from workers.compression.structure.importance import columns_of
from workers.compression.structure.units import Removed, Structure


def some_of_each_group(structure: Structure, share: float, seed: int) -> Removed:
    """About ``share`` of the units of every group, never all."""
    random = np.random.default_rng(seed)
    removed = np.zeros(structure.count, np.bool_)
    for group in structure.groups():
        count = min(round(share * len(group.units)), len(group.units) - 1)
        removed[random.choice(group.units, count, replace=False)] = True
    return removed


def masked_and_shrunk(
    proto: ModelProto, example: Feeds, feeds: Sequence[Feeds], share: float, seed: int
) -> tuple[list[list[Array]], list[list[Array]], OnnxModel]:
    """Outputs for each of ``feeds`` with zeros for what reads removed channels, outputs without these; the model."""
    give_vectors_owners(proto)
    found, model = read_structure(proto, example), OnnxModel(proto)

    def shrink(removed: Removed) -> None:
        found.shrink(proto, removed)
        model.changed()

    return *_before_and_after(model, found.structure, shrink, [example, *feeds], share, seed), model


def masked_and_shrunk_program(
    program: ExportedProgram, feeds: Sequence[Feeds], share: float, seed: int
) -> tuple[list[list[Array]], list[list[Array]], Pt2Model]:
    """The same for an exported program; the first of ``feeds`` is one row."""
    model = Pt2Model(program, 0)
    found = read_program(program, model.flat(feeds[0]))

    def shrink(removed: Removed) -> None:
        found.shrink(removed)
        model.changed()

    return *_before_and_after(model, found.structure, shrink, [feeds[0], *feeds], share, seed), model


def _before_and_after(
    model: CompressibleModel,
    structure: Structure,
    shrink: Callable[[Removed], None],
    feeds: Sequence[Feeds],
    share: float,
    seed: int,
) -> tuple[list[list[Array]], list[list[Array]]]:
    example, *rows = feeds
    removed = some_of_each_group(structure, share, seed)
    readers = [(weight, removed[columns_of(structure, weight)]) for weight in model.weights()]
    model.replace([(weight, without_columns(model.matrix(weight), gone, None)) for weight, gone in readers])
    masked = [model.run(batch) for batch in rows]
    before = structure.macs(np.zeros_like(removed))
    assert before == model.macs(example)
    shrink(removed)
    assert structure.macs(removed) == model.macs(example)
    assert (model.macs(example) or 0) < before or not removed.any()
    return masked, [model.run(batch) for batch in rows]
