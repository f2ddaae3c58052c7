"""An inspector beside the application."""

from collections.abc import Iterator

import pytest

from app.db import Database
from app.storage import Storage
from tests.inspector import Inspector


@pytest.fixture
def inspector(database: Database, storage: Storage) -> Iterator[Inspector]:
    """Inspects uploads while the test runs."""
    with Inspector(database, storage) as inspector:
        yield inspector
