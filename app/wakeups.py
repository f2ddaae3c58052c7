"""Callers that wait for news of a job, woken by one Redis subscription per process.

A wake-up says only "look again": whoever gets one re-reads SQL. It may be lost (Redis is down, or restarts), so every
waiter also looks again after ``POLL_SECONDS``; it may be doubled, which costs one read.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from app.broker import WAKE_CHANNEL

POLL_SECONDS = 1.0
RECONNECT_SECONDS = 1.0

log = logging.getLogger(__name__)


class Wakeups:
    """Fans the messages of one pattern subscription out to the waiters of this process.

    Args:
        redis_url: URL that ``redis.asyncio`` understands; None where the broker is not Redis, so that only polling
            is left.
    """

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._waiting: defaultdict[str, set[asyncio.Queue[None]]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts to listen; returns at once, whether Redis answers or not."""
        if self._redis_url is not None:
            self._listener = asyncio.create_task(self._listen(self._redis_url), name="wakeups")

    async def stop(self) -> None:
        """Ends the subscription."""
        if self._listener is None:
            return
        while not self._listener.done():
            # The client swallows a cancellation that meets it while it connects, so one may not be enough.
            self._listener.cancel()
            await asyncio.wait([self._listener], timeout=0.1)
        self._listener = None

    @contextlib.asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[asyncio.Queue[None]]:
        """A queue of wake-ups for ``topic``; it holds one at most, for two say no more than one.

        Subscribe before reading SQL, else news between the read and the subscription is missed.
        """
        queue: asyncio.Queue[None] = asyncio.Queue(maxsize=1)
        self._waiting[topic].add(queue)
        try:
            yield queue
        finally:
            self._waiting[topic].discard(queue)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def wait(self, topic: str, seconds: float) -> bool:
        """Waits for one wake-up of ``topic``; False when none came within ``seconds``."""
        async with self.subscribe(topic) as queue:
            return await next_wakeup(queue, seconds)

    async def _listen(self, redis_url: str) -> None:
        warned = False
        while True:
            try:
                async with redis.from_url(redis_url) as client, client.pubsub() as pubsub:
                    await pubsub.psubscribe(f"{WAKE_CHANNEL}*")
                    async for message in pubsub.listen():
                        warned = False
                        self._deliver(message)
            except (RedisError, OSError) as error:
                log.log(logging.DEBUG if warned else logging.WARNING, "no wake-ups, waiters poll: %s", error)
                warned = True
            await asyncio.sleep(RECONNECT_SECONDS)

    def _deliver(self, message: dict[str, Any]) -> None:
        if message["type"] == "psubscribe":
            # What was published before this (re)subscription is gone, so everyone looks again.
            topics = list(self._waiting)
        elif message["type"] == "pmessage":
            topics = [message["channel"].decode().removeprefix(WAKE_CHANNEL)]
        else:
            return
        for topic in topics:
            for queue in self._waiting.get(topic, ()):
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(None)


async def next_wakeup(queue: asyncio.Queue[None], seconds: float) -> bool:
    """Takes one wake-up out of ``queue``; False when none came within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await queue.get()
    except TimeoutError:
        return False
    return True
