"""JSON from strangers: bounded depth, no key twice, only finite numbers of sane length."""

import json
import math
import re
from typing import Any

from workers.compression.specs.errors import EngineError

MAX_DEPTH = 64
MAX_CONTAINERS = 1_000_000
MAX_DIGITS = 40

# A string (to its end, or the end of the text) or one bracket; possessive, so that no input makes it quadratic.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[\[{]|[\]}]', re.DOTALL)


class _Refused(ValueError):
    """A finding of the parser's hooks: detail and reason."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


def parse_json(data: bytes, error: type[EngineError], *, max_depth: int = MAX_DEPTH) -> Any:
    """Parses UTF-8 JSON.

    Raises:
        EngineError: An ``error`` whose reason is ``json_too_deep``, ``json_duplicate_key``, ``json_not_finite``,
            ``json_number_too_long`` or ``json_invalid``.
    """
    try:
        _check_depth(data, max_depth)
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
            parse_float=_finite_float,
        )
    except _Refused as refused:
        raise error(str(refused), reason=refused.reason) from refused
    except (ValueError, RecursionError) as broken:
        raise error("The JSON cannot be parsed.", reason="json_invalid") from broken


def _check_depth(data: bytes, max_depth: int) -> None:
    """Depth is counted before parsing: the parser itself recurses and would overflow the stack."""
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise _Refused("The JSON has too many lists and objects.", "json_too_deep")
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise _Refused(f"The JSON is nested deeper than {max_depth} levels.", "json_too_deep")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("The JSON has an object with the same key twice.", "json_duplicate_key")
    return found


def _refuse_constant(word: str) -> None:
    raise _Refused(f"The JSON holds {word}, which is not a number.", "json_not_finite")


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused("The JSON holds an integer of absurd length.", "json_number_too_long")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Refused("The JSON holds a number too large for a float.", "json_not_finite")
    return value
