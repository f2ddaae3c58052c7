"""Lists: newest first, a cursor, filters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import InvalidSpec
from app.validation_pointers import FieldError

T = TypeVar("T")
R = TypeVar("R")

LABEL_FILTER = "label."
_LABEL_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None


def _page(
    limit: Annotated[int, Query(ge=1, le=100, description="Objects per page.")] = 20,
    after: Annotated[
        str | None, Query(max_length=64, description="The `next` of the page before: the list goes on after it.")
    ] = None,
) -> Page:
    return Page(limit, after)


Paging = Annotated[Page, Depends(_page)]


@dataclass(frozen=True)
class Filters:
    """What a list is narrowed to; None and an empty mapping mean everything."""

    status: str | None
    labels: dict[str, str]
    created_after: datetime | None
    created_before: datetime | None


def _filters(
    request: Request,
    status: Annotated[str | None, Query(max_length=20, description="Only objects in this state.")] = None,
    created_after: Annotated[datetime | None, Query(description="Only what was made later (RFC 3339).")] = None,
    created_before: Annotated[datetime | None, Query(description="Only what was made earlier (RFC 3339).")] = None,
) -> Filters:
    return Filters(status, _label_filters(request), _aware(created_after), _aware(created_before))


Filtering = Annotated[Filters, Depends(_filters)]


class ListPage(BaseModel, Generic[T]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    next: str | None = None
    """The ``after`` of the next page."""


def newest_first(statement: Select[Any], identifier: InstrumentedAttribute[str], page: Page) -> Select[Any]:
    """Orders by the sortable id and cuts the page, with one row more that tells whether there is another page."""
    if page.after is not None:
        statement = statement.where(identifier < page.after)
    return statement.order_by(identifier.desc()).limit(page.limit + 1)


def narrowed(statement: Select[Any], record: Any, filters: Filters, states: type[StrEnum]) -> Select[Any]:
    """Applies the filters to a statement over a record that has ``status``, ``labels`` and ``created_at``.

    Raises:
        InvalidSpec: ``status`` is none of the ``states``.
    """
    if filters.status is not None:
        if filters.status not in set(states):
            errors = [FieldError(pointer="/status", detail=f"It is one of {', '.join(states)}.")]
            raise InvalidSpec("The request has fields that are not valid.", errors=errors)
        statement = statement.where(record.status == filters.status)
    if filters.created_after is not None:
        statement = statement.where(record.created_at > filters.created_after)
    if filters.created_before is not None:
        statement = statement.where(record.created_at < filters.created_before)
    for key, value in filters.labels.items():
        statement = statement.where(record.labels[key].as_string() == value)
    return statement


def split_page(rows: Sequence[R], page: Page) -> tuple[Sequence[R], bool]:
    """The page's rows, and whether there are more."""
    return rows[: page.limit], len(rows) > page.limit


def list_page(data: Sequence[T], *, has_more: bool) -> ListPage[T]:
    """A page of objects that have an ``id``."""
    last = getattr(data[-1], "id", None) if data and has_more else None
    return ListPage(data=list(data), has_more=has_more, next=last)


def page_by_position(rows: Sequence[R], page: Page) -> tuple[Sequence[R], str | None]:
    """A page of rows that have an order but no ids, and the ``after`` of the next one, which is a position.

    Raises:
        InvalidSpec: ``after`` is no position.
    """
    if not re.fullmatch("[0-9]{1,9}", page.after or "0"):
        errors = [FieldError(pointer="/after", detail="It is not the `next` of a page before.")]
        raise InvalidSpec("The request has fields that are not valid.", errors=errors)
    start = int(page.after or "0")
    end = start + page.limit
    return rows[start:end], str(end) if end < len(rows) else None


def _label_filters(request: Request) -> dict[str, str]:
    found = {
        name.removeprefix(LABEL_FILTER): value
        for name, value in request.query_params.items()
        if name.startswith(LABEL_FILTER)
    }
    for key in found:
        if not _LABEL_KEY.fullmatch(key):
            error = FieldError(pointer=f"/{LABEL_FILTER}{key[:64]}", detail="A label's key is 1 to 64 of A-Za-z0-9._-")
            raise InvalidSpec("The request has fields that are not valid.", errors=[error])
    return found


def _aware(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
