"""A cluster on SQLite, or on PostgreSQL, with a network trained on real digits."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import Database
from tests.chaos.cluster import Cluster
from tests.trained import write_npz, write_onnx


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("digits")
    return write_onnx("mlp", folder / "digits.onnx"), write_npz("mlp", folder / "digits.npz")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Short, for a unix socket's path holds about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        yield Path(folder)


@pytest.fixture
def cluster(data_dir: Path, migrated_sqlite: Path, digits: tuple[Path, Path]) -> Iterator[Cluster]:
    shutil.copyfile(migrated_sqlite, data_dir / "pressroom.db")
    cluster = Cluster(data_dir, f"sqlite:///{data_dir / 'pressroom.db'}", *digits)
    yield cluster
    cluster.close()


@pytest.fixture
def postgres_cluster(data_dir: Path, postgres_database: Database, digits: tuple[Path, Path]) -> Iterator[Cluster]:
    cluster = Cluster(data_dir, postgres_database.url, *digits)
    yield cluster
    cluster.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_cluster(request: pytest.FixtureRequest) -> Cluster:
    name = "cluster" if request.param == "sqlite" else "postgres_cluster"
    cluster: Cluster = request.getfixturevalue(name)
    return cluster
