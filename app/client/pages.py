"""Cursor lists as iterators."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from app.client.connection import Connection
from app.client.objects import ApiObject

Listed = TypeVar("Listed", bound=ApiObject)
PAGE_SIZE = 100


def pages(connection: Connection, path: str, kind: type[Listed], filters: Mapping[str, Any]) -> Iterator[Listed]:
    """Every object of a list, one request per page, as far as the caller iterates."""
    params = {"limit": PAGE_SIZE, **{name: value for name, value in filters.items() if value is not None}}
    while True:
        page = connection.get(path, params=params)
        yield from (kind.model_validate(entry) for entry in page["data"])
        if not page["has_more"]:
            return
        params["after"] = page["next"]
