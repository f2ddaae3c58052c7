"""Prefixed, sortable identifiers."""

from typing import Literal

from ulid import ULID

Prefix = Literal["prj", "mdl", "dst", "job", "art", "evt", "trl", "key", "wrk", "req"]


def new_id(prefix: Prefix) -> str:
    """``prefix_`` and a ULID: sorts by creation time, 80 random bits."""
    return f"{prefix}_{ULID()}"
