"""Accept and Prefer headers, as clients really send them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import NotAcceptable
from app.negotiation import negotiate, wait_seconds

FORMS = ["application/json", "text/html", "text/markdown"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/html"),
        ("TEXT/HTML", "text/html"),
        ("text/markdown, text/html;q=0.5", "text/markdown"),
        ("text/*", "text/html"),
        ("text/*;q=0.5, application/json;q=0.4", "text/html"),
        ("text/html;q=0, */*;q=0.1", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        ("text/html;q=nonsense, text/markdown", "text/markdown"),
    ],
)
def test_the_best_liked_form_is_chosen(accept: str | None, chosen: str) -> None:
    assert negotiate(accept, FORMS) == chosen


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0", "nonsense"])
def test_what_cannot_be_made_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiate(accept, FORMS)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("wait=5", 5),
        ("wait=0", 0),
        ("wait=999999999", 60),
        ("respond-async, wait=10", 10),
        ('wait="7"; foo', 7),
        ("Wait = 3", 3),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("await=9", None),
        ("wait", None),
    ],
)
def test_the_waiting_time_is_read_and_capped(prefer: str | None, seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds


@given(st.text(max_size=200))
def test_no_header_breaks_the_parsing(header: str) -> None:
    wait_seconds(header)
    with contextlib.suppress(NotAcceptable):
        assert negotiate(header, FORMS) in FORMS
