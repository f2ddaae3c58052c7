"""Puts weights into groups from the input to the output: blocks where names show them, else layers."""

import re
from collections import defaultdict
from collections.abc import Sequence

from workers.compression.families.onnx.training.checking import operator_of
from workers.compression.families.onnx.training.weights import ARITHMETIC, Learned
from workers.compression.families.onnx.walking import Index, Place, layer_name

_NORMS = frozenset({"BatchNormalization", "InstanceNormalization", "GroupNormalization"})
_NUMBERED = (re.compile(r"(.*?(?:^|[./]))(\d+)[./].*[./]"), re.compile(r"(.*?[A-Za-z]_)(\d+)[./].*[./]"))
"""A block's name and number before its layers' names: ``encoder.layer.3.``, ``/encoder/layer.3/``, ``block_3/``."""


def layer_groups(index: Index, learned: Sequence[Learned], head: Place | None) -> dict[str, list[Learned]]:
    """Parameters in named groups by the order of execution; those of the layer ``head`` alone make up the last one.

    What comes before the first block, such as a transformer's embeddings, is one group.
    """
    parameters = [found for found in learned if not found.statistic]
    owners = {reader.place for found in parameters for reader in found.readers}
    layers = {found: _layer(index, owners, found.readers[0].place) for found in parameters}
    blocks = _blocks({found: (found.value.name, layer_name(layers[found].node)) for found in parameters})
    front = next((found for found in parameters if found in blocks), None)
    first = parameters.index(front) if front is not None else 0
    groups: dict[str | Place, list[Learned]] = {}
    own: list[Learned] = []
    for position, found in enumerate(parameters):
        layer = layers[found]
        key = layers[parameters[0]] if position < first else blocks.get(found, layer)
        group = own if layer is head else groups.setdefault(key, [])
        group.append(found)
    return _named({**groups, **({head: own} if head is not None and own else {})})


def _named(groups: dict[str | Place, list[Learned]]) -> dict[str, list[Learned]]:
    """Groups by the block's name or, for a layer, by what its first weight's name begins with."""
    named: dict[str, list[Learned]] = {}
    for key, members in groups.items():
        stem = key if isinstance(key, str) else members[0].value.name.rpartition(".")[0] or layer_name(key.node)
        name, count = stem, 1
        while name in named:
            count += 1
            name = f"{stem}_{count}"
        named[name] = members
    return named


def _layer(index: Index, owners: set[Place], place: Place) -> Place:
    """The node that a bias, a scale or a norm behind it belongs to; else the node itself."""
    while operator_of(place.node) in ARITHMETIC | _NORMS:
        values = (index.read(place, slot) for slot in range(len(place.node.input)))
        makers = [index.makers[value] for value in values if value in index.makers and value not in index.stored]
        if len(makers) != 1 or makers[0] not in owners:
            break
        place = makers[0]
    return place


def _blocks(names: dict[Learned, tuple[str, str]]) -> dict[Learned, str]:
    """The block that each weight's own or its layer's name shows, where there is more than one of a kind."""
    shown = {found: block for found, candidates in names.items() if (block := _numbered(candidates)) is not None}
    kinds: dict[str, set[str]] = defaultdict(set)
    for kind, number in shown.values():
        kinds[kind].add(number)
    return {found: kind + number for found, (kind, number) in shown.items() if len(kinds[kind]) > 1}


def _numbered(candidates: tuple[str, str]) -> tuple[str, str] | None:
    for pattern in _NUMBERED:
        for name in candidates:
            found = pattern.match(name)
            if found is not None:
                return found.group(1), found.group(2)
    return None
