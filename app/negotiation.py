"""Choosing what a client gets from its ``Accept`` and ``Prefer`` headers."""

import re
from collections.abc import Sequence

from app.errors import NotAcceptable

LONGEST_WAIT_SECONDS = 60
_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.ASCII | re.IGNORECASE)


def negotiate(accept: str | None, offered: Sequence[str]) -> str:
    """The media type of ``offered`` that the client likes best; among equals the one offered first.

    Args:
        accept: The ``Accept`` header; without one anything goes.
        offered: Media types such as ``text/html``, the default first.

    Raises:
        NotAcceptable: None of them is acceptable.
    """
    ranges = _parse(accept) if accept else [("*/*", 1.0)]
    qualities = {media_type: _quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: qualities[media_type])
    if qualities[best] <= 0.0:
        raise NotAcceptable(f"This can be had as {', '.join(offered)}.")
    return best


def wait_seconds(prefer: str | None) -> int | None:
    """The seconds of ``Prefer: wait=N`` (RFC 7240), capped; None without that preference."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_WAIT_SECONDS) if found else None


def _parse(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for entry in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            ranges.append((media_range, min(max(float(quality), 0.0), 1.0)))
        except ValueError:
            continue
    return ranges


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that matches."""
    for wanted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        matching = [quality for media_range, quality in ranges if media_range == wanted]
        if matching:
            return matching[0]
    return 0.0
