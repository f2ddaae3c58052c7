"""Pydantic's error locations as JSON pointers into the request the client sent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

SOURCES = frozenset({"body", "query", "path", "header", "cookie"})
MAX_ERRORS = 50
BAD_KEY = "[key]"  # pydantic's last part where the key of a mapping is to blame


class FieldError(BaseModel):
    """One field to blame."""

    pointer: str = Field(examples=["/recipe/0/bits"])
    detail: str = Field(examples=["Input should be less than or equal to 8"])


def field_errors(errors: Iterable[Mapping[str, Any]], body: Any = None) -> list[FieldError]:
    """What pydantic found, each with a pointer that resolves in ``body`` as far as the body reaches.

    Args:
        errors: ``ValidationError.errors()`` or FastAPI's equivalent.
        body: The request as it was parsed, to tell keys of the request from tags that pydantic puts into locations.
    """
    found = []
    for error in _without_echoes(list(errors)[:MAX_ERRORS]):
        location = tuple(error.get("loc", ()))
        if location and location[0] in SOURCES:
            location = location[1:]
        pointer = json_pointer(_strip_tags(location, body, names_field=error.get("type") != "value_error"))
        found.append(FieldError(pointer=pointer, detail=str(error.get("msg", ""))))
    return found


def json_pointer(location: Sequence[str | int]) -> str:
    """RFC 6901: ``("recipe", 0, "a/b")`` becomes ``/recipe/0/a~1b``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _without_echoes(errors: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leaves out that a list is too short where that is only so because items of it are not valid themselves."""
    locations = [tuple(error.get("loc", ())) for error in errors]

    def is_echo(error: Mapping[str, Any]) -> bool:
        outer = tuple(error.get("loc", ()))
        return error.get("type") == "too_short" and any(
            len(inner) > len(outer) and inner[: len(outer)] == outer for inner in locations
        )

    return [error for error in errors if not is_echo(error)]


def _strip_tags(location: Sequence[str | int], body: Any, *, names_field: bool) -> list[str | int]:
    """Drops the parts that name an arm of a union instead of a key of the request.

    A discriminated union puts its tag (``quantize.static``) into the location. The request has no such key, so a part
    that is not a key of the object it stands in is a tag, unless it is the last one and ``names_field``, such as one
    that is missing; what is wrong with an arm as a whole ends in its tag.
    """
    kept: list[str | int] = []
    here = body
    for index, part in enumerate(location):
        following = location[index + 1 :]
        is_tag = isinstance(here, Mapping) and part not in here and (following or not names_field)
        if is_tag or (part == BAD_KEY and not following):
            continue
        kept.append(part)
        here = _descend(here, part)
    return kept


def _descend(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int) and part < len(value):
        return value[part]
    return None
