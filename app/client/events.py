"""Server-sent events (WHATWG HTML, section 9.2) as far as the service uses them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One dispatched message of a stream."""

    id: str
    event: str
    data: str


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """The messages in a stream's lines; comments and fields nobody uses are skipped.

    A message that the stream breaks off is dropped, as the standard says: after a reconnection it comes again.
    """
    last_id, event, data = "", "", list[str]()
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                event = value
            elif name == "id" and "\0" not in value:
                last_id = value
            continue
        if data:
            yield Message(last_id, event or "message", "\n".join(data))
        event, data = "", []
