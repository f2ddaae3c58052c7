"""Waiting for the inspection of an upload."""

import time
from collections.abc import Callable
from typing import TypeVar

from app.client.errors import Refused, WaitTimeout
from app.client.objects import Dataset, Model

Inspected = TypeVar("Inspected", Model, Dataset)
FIRST_POLL_SECONDS = 0.2
LONGEST_POLL_SECONDS = 2.0


def wait_until_inspected(fetch: Callable[[], Inspected], wait_seconds: float) -> Inspected:
    """The object once it is ``ready``.

    Raises:
        Refused: It was rejected.
        WaitTimeout: It is still being inspected after ``wait_seconds``.
    """
    deadline, pause = time.monotonic() + wait_seconds, FIRST_POLL_SECONDS
    while True:
        found = fetch()
        if found.status == "rejected":
            raise Refused(422, found.error or {"detail": f"{found.id} was rejected"})
        if found.status != "inspecting":
            return found
        if time.monotonic() > deadline:
            raise WaitTimeout(f"{found.id} is still being inspected after {wait_seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
