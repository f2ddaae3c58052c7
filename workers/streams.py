"""Reading what an untrusted process writes: as much as it likes to send, no more than fits the caps is kept."""

import time
from collections.abc import Callable

from workers.compression.specs.messages import MAX_EVENT_BYTES

MAX_LINES = 20_000
LINES_PER_SECOND = 50.0


class LineReader:
    """Cuts a byte stream into lines; drops lines over ``MAX_EVENT_BYTES`` and those that come too fast.

    ``MAX_LINES`` may come at once; from then on ``LINES_PER_SECOND``, so that a long training is heard to its end.

    Args:
        on_line: Takes each line that is kept, without its end.
        clock: Seconds that only grow.
    """

    def __init__(self, on_line: Callable[[bytes], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_line = on_line
        self._rest = b""
        self._too_long = False
        self._clock = clock
        self._allowed = float(MAX_LINES)
        self._counted_at = clock()

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        now = self._clock()
        self._allowed = min(MAX_LINES, self._allowed + (now - self._counted_at) * LINES_PER_SECOND)
        self._counted_at = now
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._end_line(self._rest + line)
            self._rest = b""
        self._rest += rest
        if len(self._rest) > MAX_EVENT_BYTES:
            self._rest, self._too_long = b"", True

    def _end_line(self, line: bytes) -> None:
        keep = not self._too_long and 0 < len(line) <= MAX_EVENT_BYTES and self._allowed >= 1.0
        self._too_long = False
        self._allowed = max(0.0, self._allowed - 1.0)
        if keep:
            self._on_line(line)


class Tail:
    """The last ``size`` bytes of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        self._kept += data[-self._size :]
        del self._kept[: -self._size]

    def text(self) -> str:
        """What was kept, undecodable bytes replaced; NUL too, for PostgreSQL stores none."""
        return self._kept.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
