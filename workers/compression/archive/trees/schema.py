"""What a skops schema says that does not follow from the order of its objects, its arrays and its trees."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from workers.compression.families.trees.entries import FIRST_NUMBER, entry_name
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import InvalidModel

_CONSTANTS = ("JsonNode", "TypeNode")

_NULL = "null"
_SEED_DIGITS = 10
_MOST_SEEDS = (1 << 31) - 1

Facts = Sequence[tuple[int, int]]
"""Depth and number of nodes of each tree, in the order of the schema."""
Settle = Callable[[dict[str, Any], str, int | str], Any]
"""Of an object, a key and what is likely to stand there, what does."""


def shortened(schema: Any, facts: Facts) -> bytes:
    """The schema as compact JSON, null where ``restored`` knows what stands there; changes ``schema``."""
    _walk(schema, facts, _clear)
    return json.dumps(schema, separators=(",", ":")).encode()


def restored(text: bytes, facts: Facts) -> Any:
    """The schema that ``shortened`` was given.

    Raises:
        InvalidModel: It is no JSON.
    """
    schema = parse_json(text, InvalidModel)
    _walk(schema, facts, _fill)
    return schema


def _clear(node: dict[str, Any], key: str, expected: int | str) -> Any:
    actual = node[key]
    if actual == expected:
        node[key] = None
    return actual


def _fill(node: dict[str, Any], key: str, expected: int | str) -> Any:
    if node[key] is None:
        node[key] = expected
    return node[key]


def _walk(schema: Any, facts: Facts, settle: Settle) -> None:
    """Settles numbers of objects and arrays and what a tree says of itself, outer objects first."""
    numbers: dict[tuple[str, str | None] | None, int] = {}
    known, seeds = iter(facts), _drawn(_seed(schema).get("content"))
    waiting, objects, files = [schema], 0, 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(reversed(node))
        if not isinstance(node, dict):
            continue
        if node is not schema:
            _settle_estimator(node, known, seeds, settle)
        if "__id__" in node:
            constant = _constant(node)
            number = settle(node, "__id__", numbers.get(constant, FIRST_NUMBER + objects))
            if isinstance(number, int):
                numbers.update({constant: number} if constant is not None else {})
                objects = max(objects, number - FIRST_NUMBER + 1)
        if "file" in node:
            settle(node, "file", entry_name(files))
            files += 1
        waiting.extend(reversed(node.values()))


def _settle_estimator(
    node: dict[str, Any], facts: Iterator[tuple[int, int]], seeds: Iterator[str], settle: Settle
) -> None:
    """A tree's seed, or its depth and number of nodes."""
    seeded = _seed(node)
    if seeded.get("content", _NULL) != _NULL and (seed := next(seeds, None)) is not None:
        settle(seeded, "content", seed)
    if node.get("__loader__") == "TreeNode":
        state = _inside(_inside(node, "content"), "content")
        for name, fact in zip(("max_depth", "node_count"), next(facts, (0, 0)), strict=True):
            described = _inside(state, name)
            if "content" in described:
                settle(described, "content", str(fact))


def _seed(node: Any) -> dict[str, Any]:
    """How the seed of an estimator is described; an empty one if the node is none."""
    return _inside(_inside(_inside(node, "content"), "content"), "random_state")


def _drawn(seed: Any) -> Iterator[str]:
    """The seeds that scikit-learn gives to the trees of a forest whose own seed is ``seed``."""
    if isinstance(seed, str) and seed.isdecimal() and len(seed) < _SEED_DIGITS:
        # scikit-learn's own choice; the stream of this generator is frozen.
        drawn = np.random.RandomState(int(seed))
        while True:
            yield str(drawn.randint(_MOST_SEEDS))


def _inside(node: Any, key: str) -> dict[str, Any]:
    found = node.get(key) if isinstance(node, dict) else None
    return found if isinstance(found, dict) else {}


def _constant(node: dict[str, Any]) -> tuple[str, str | None] | None:
    """What tells constants apart: equal ones share a number, all other objects have one of their own."""
    content = node.get("content")
    if node.get("__loader__") in _CONSTANTS and isinstance(content, str | None):
        return str(node.get("__class__")), content
    return None
