"""Blobs in a folder and in a real S3-speaking server."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from app.storage import BlobCorrupt, Storage
from workers.compression.specs.errors import StorageUnavailable

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    httpx.put(f"{endpoint}/blobs", headers={"Host": "s3.amazonaws.com"}).raise_for_status()
    yield endpoint
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    cache = tmp_path / "cache"
    if request.param == "folder":
        return Storage((tmp_path / "a b%20c#d" / "blobs").as_uri(), {}, cache)
    options = {
        "endpoint": request.getfixturevalue("s3_endpoint"),
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
        "allow_http": "true",
    }
    return Storage(f"s3://blobs/{tmp_path.name}", options, cache)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


async def test_bytes_come_back_whole_and_in_parts(store: Storage, file: Path) -> None:
    assert not store.exists(SHA256)
    store.put_file(file, SHA256)
    store.put_file(file, SHA256)
    assert store.exists(SHA256)
    assert store.read(SHA256) == CONTENT
    assert store.read(SHA256, 5, 50) == CONTENT[5:50]
    assert b"".join([piece async for piece in store.stream(SHA256, 1000, 2_900_000)]) == CONTENT[1000:2_900_000]
    with store.local(SHA256) as path:
        assert path.read_bytes() == CONTENT
    store.ping()


def test_a_deleted_blob_is_gone(store: Storage, file: Path) -> None:
    store.put_file(file, SHA256)
    store.delete(SHA256)
    store.delete(SHA256)
    assert not store.exists(SHA256)
    with pytest.raises(StorageUnavailable):
        store.read(SHA256)
    with pytest.raises(StorageUnavailable), store.local(SHA256):
        pass


def test_other_bytes_are_not_stored_under_a_hash(store: Storage, file: Path) -> None:
    with pytest.raises(BlobCorrupt):
        store.put_file(file, "0" * 64)
    assert not store.exists("0" * 64)


def test_a_fetched_copy_is_removed(store: Storage, file: Path, tmp_path: Path) -> None:
    store.put_file(file, SHA256, move=False)
    with store.local(SHA256):
        pass
    assert list((tmp_path / "cache").glob("*")) == []


def test_a_folder_keeps_blobs_read_only_and_nothing_half_written(tmp_path: Path, file: Path) -> None:
    store = Storage(f"file://{tmp_path}/blobs", {}, tmp_path / "cache")
    store.put_file(file, SHA256, move=True)
    assert not file.exists()
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in files] == [(SHA256, 0o440)]


def test_a_store_that_does_not_answer_says_so(tmp_path: Path) -> None:
    options = {"endpoint": "http://127.0.0.1:9", "allow_http": "true", "access_key_id": "a", "secret_access_key": "b"}
    store = Storage("s3://blobs/x", {**options, "region": "us-east-1", "timeout": "1s"}, tmp_path)
    with pytest.raises(StorageUnavailable):
        store.ping()
