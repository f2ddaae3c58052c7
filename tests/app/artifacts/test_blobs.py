"""Reference counts and garbage collection."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.artifacts.records import BlobRecord
from app.artifacts.repository import (
    collect_blobs,
    discard_blob,
    hold_again,
    hold_blob,
    release_blob,
    reserve_blob,
    store_file,
)
from app.db import Database
from app.storage import Storage

CONTENT = b"some weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
AT_ONCE = -1.0


@pytest.fixture
def stored(any_database: Database, storage: Storage, tmp_path: Path) -> Database:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert store_file(any_database, storage, path, SHA256) == len(CONTENT)
    return any_database


def test_a_blob_without_references_goes_in_two_rounds(stored: Database, storage: Storage) -> None:
    assert collect_blobs(stored, storage, 60.0) == 0
    assert collect_blobs(stored, storage, AT_ONCE) == 0
    assert storage.exists(SHA256)
    assert collect_blobs(stored, storage, AT_ONCE) == 1
    assert not storage.exists(SHA256)
    with stored.reading() as session:
        assert session.get(BlobRecord, SHA256) is None


def test_a_held_blob_stays(stored: Database, storage: Storage) -> None:
    with stored.transaction() as session:
        hold_blob(session, SHA256, len(CONTENT))
        hold_blob(session, SHA256, len(CONTENT))
        release_blob(session, SHA256)
    for _ in range(3):
        assert collect_blobs(stored, storage, AT_ONCE) == 0
    assert storage.exists(SHA256)


def test_whoever_reserves_a_doomed_blob_saves_it(stored: Database, storage: Storage) -> None:
    collect_blobs(stored, storage, AT_ONCE)
    with stored.transaction() as session:
        assert session.get_one(BlobRecord, SHA256).state == "deleting"
        reserve_blob(session, SHA256, len(CONTENT))
    assert collect_blobs(stored, storage, 60.0) == 0
    assert storage.exists(SHA256)


def test_releasing_too_often_does_not_go_below_zero(stored: Database) -> None:
    with stored.transaction() as session:
        release_blob(session, SHA256)
        assert session.get_one(BlobRecord, SHA256).references == 0


def test_a_blob_that_only_its_writer_knew_goes_at_once(stored: Database, storage: Storage) -> None:
    with stored.transaction() as session:
        hold_again(session, SHA256, len(CONTENT))
    assert not discard_blob(stored, storage, SHA256)
    with stored.transaction() as session:
        release_blob(session, SHA256)
    assert discard_blob(stored, storage, SHA256)
    assert not storage.exists(SHA256)
    assert not discard_blob(stored, storage, SHA256)


@pytest.mark.parametrize("name", [reserve_blob, hold_blob])
def test_a_blob_that_somebody_else_is_about_to_name_is_left_to_the_collector(
    stored: Database, storage: Storage, name: Callable[[Session, str, int], None]
) -> None:
    with stored.transaction() as session:
        hold_again(session, SHA256, len(CONTENT))
        name(session, SHA256, len(CONTENT))
        release_blob(session, SHA256)
        release_blob(session, SHA256)
    assert not discard_blob(stored, storage, SHA256)
    assert storage.exists(SHA256)
