"""A cluster on SQLite or on PostgreSQL."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import Database
from tests.chaos.cluster import Cluster


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short, for a unix socket's path holds about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(data_dir: Path, migrated_sqlite: Path) -> Iterator[Cluster]:
    shutil.copyfile(migrated_sqlite, data_dir / "pressroom.db")
    cluster = Cluster(data_dir, f"sqlite:///{data_dir / 'pressroom.db'}")
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_cluster(data_dir: Path, postgres_database: Database) -> Iterator[Cluster]:
    cluster = Cluster(data_dir, postgres_database.url)
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    name = "cluster" if request.param == "sqlite" else "postgres_cluster"
    cluster: Cluster = request.getfixturevalue(name)
    return cluster
