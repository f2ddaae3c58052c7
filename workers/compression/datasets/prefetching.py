"""The next batches are made while the present one is worked on."""

import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _Made(Generic[Item]):
    item: Item


@dataclass(frozen=True)
class _Ended:
    fault: BaseException | None = None


def prefetched(batches: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """``batches`` in their order, up to ``depth`` of them made ahead by one thread.

    What making a batch raises is raised here in its place. The thread starts with the first item asked for and has
    ended when the iterator is exhausted, closed or collected.
    """
    queue: Queue[_Made[Item] | _Ended] = Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_make, args=(batches, queue, stopped), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            found = queue.get()
            if isinstance(found, _Ended):
                if found.fault is not None:
                    raise found.fault
                return
            yield found.item
    finally:
        stopped.set()
        _drain(queue)
        thread.join()


def _make(batches: Iterable[Item], queue: Queue[_Made[Item] | _Ended], stopped: threading.Event) -> None:
    try:
        for item in batches:
            queue.put(_Made(item))
            # After the put, not before it: a consumer that has stopped drains the queue once, which frees the one put
            # that may be waiting, and no other follows.
            if stopped.is_set():
                return
        ended = _Ended()
    except BaseException as fault:  # noqa: BLE001 - it belongs to whoever takes the batches
        ended = _Ended(fault)
    if not stopped.is_set():
        queue.put(ended)


def _drain(queue: Queue[_Made[Item] | _Ended]) -> None:
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return
