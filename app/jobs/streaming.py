"""Following a job: waiting for its end, and its events as server-sent events.

No session is held between two looks at the database. A wake-up makes the next look come at once; without Redis it
comes within ``POLL_SECONDS``.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy.orm import Session
from starlette.types import Message, Send

from app.dependencies import Services
from app.jobs import reading, repository, service, views
from app.jobs.schemas import EventRead, JobRead
from app.jobs.states import TERMINAL
from app.wakeups import POLL_SECONDS, next_wakeup

HEARTBEAT_SECONDS = 15.0
SLOW_READER_SECONDS = 30.0
EVENTS_PER_LOOK = 100
TERMINAL_EVENTS = frozenset(f"job.{state.value}" for state in TERMINAL)


async def wait_for_end(services: Services, project_id: str, job_id: str, seconds: float) -> JobRead:
    """The job in its terminal state, or as it is after ``seconds``."""

    def look(session: Session) -> JobRead:
        return views.job_read(session, service.get(session, project_id, job_id))

    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    async with services.wakeups.subscribe(job_id) as news:
        while True:
            job = await services.reading(look)
            left = deadline - clock()
            if job.done or left <= 0:
                return job
            await next_wakeup(news, min(left, POLL_SECONDS))


class EventStream(EventSourceResponse):
    """A stream that gives up on a client which takes nothing for ``SLOW_READER_SECONDS``; it can resume later."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, headers={"Vary": "Accept"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Sends the events; ends without the closing message when the reader is too slow."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SLOW_READER_SECONDS):
                await send(message)

        async with contextlib.aclosing(self._events):
            with contextlib.suppress(TimeoutError):
                await super().stream_response(send_in_time)


async def story(services: Services, job_id: str, after: int) -> AsyncGenerator[bytes, None]:
    """The job's events from sequence ``after`` (exclusive) to the terminal one, as server-sent events."""
    clock = asyncio.get_running_loop().time
    last_sent = clock()
    async with services.wakeups.subscribe(job_id) as news:
        while True:
            events, ended = await services.reading(partial(_look, job_id=job_id, after=after))
            for event in events:
                yield _encode(event)
                after, last_sent = event.sequence, clock()
            if ended:
                return
            if not events:
                if clock() - last_sent >= HEARTBEAT_SECONDS:
                    yield KEEPALIVE_COMMENT
                    last_sent = clock()
                await next_wakeup(news, POLL_SECONDS)


def _look(session: Session, job_id: str, after: int) -> tuple[list[EventRead], bool]:
    """What is new, and whether nothing will follow it."""
    # Asked first: if the job is done by now, its last event is among those read after this.
    standing = reading.standing(session, job_id)
    events = [views.event_read(event) for event in repository.events_after(session, job_id, after, EVENTS_PER_LOOK)]
    last = events[-1].sequence if events else after
    return events, standing is None or (standing.done and last >= standing.last_sequence)


def _encode(event: EventRead) -> bytes:
    return format_sse_event(data_str=event.model_dump_json(), event=event.type, id=event.id)
