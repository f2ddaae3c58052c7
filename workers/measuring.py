"""One measurement at a time per host: two of them would measure each other."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_SECONDS = 0.1


@contextmanager
def measuring_slot(data_dir: Path, check: Callable[[], None]) -> Iterator[None]:
    """Waits for the host's measuring slot.

    Args:
        data_dir: Shared by the workers of a host; the slot is a lock on a file in it, which dies with its holder.
        check: Called while waiting; raises to give up.
    """
    with (data_dir / "measuring.lock").open("w") as file:
        while not _try_lock(file.fileno()):
            check()
            time.sleep(_LOOK_SECONDS)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
