"""The blob store: files named by the sha256 of their content, in a folder or behind an object-store URL."""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url

from workers.compression.specs.errors import EngineError, StorageUnavailable

CHUNK_BYTES = 1 << 20
BLOB_MODE = 0o440
# The store's own default is to try for three minutes, in the middle of a request.
RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}
CLIENT_OPTIONS = frozenset({"allow_http", "timeout", "connect_timeout"})


class BlobCorrupt(EngineError):
    """The bytes do not have the hash they are stored or fetched under."""


class Storage:
    """Content-addressed files.

    A blob is either whole or absent: in a folder it is written under a temporary name, synced and renamed; an object
    store's put is atomic by itself. Bytes under a hash never change, so everything here may be repeated.

    Args:
        url: ``file:///…``, or an object-store URL such as ``s3://bucket/prefix``.
        options: Options of obstore for that URL, such as ``{"endpoint": "…", "allow_http": "true"}``.
        cache_dir: Where blobs of an object store are put while ``local`` lends them out.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None, cache_dir: Path) -> None:
        parts = urlsplit(url)
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._cache_dir = cache_dir
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store: Any = LocalStore(self._folder)
        else:
            self._store = from_url(url, retry_config=RETRY, **_store_options(options or {}))

    def put_file(self, path: Path, sha256: str, *, move: bool = False) -> None:
        """Stores the file under its hash; nothing happens if it is already there.

        Args:
            path: The file. A copy's hash is checked on the way, so a file that someone else may still write to is safe.
            sha256: Hash of its content.
            move: The file belongs to the caller alone and its hash was taken from the bytes as written, so it may be
                renamed into place.

        Raises:
            BlobCorrupt: The file's content has another hash.
            StorageUnavailable: The store did not take it.
        """
        if self._folder is not None:
            self._place(path, self._folder / _key(sha256), sha256, move=move)
        elif not self.exists(sha256):
            if not move and _hash_of(path) != sha256:
                raise BlobCorrupt("The file does not have the announced hash.")
            with _translated():
                obstore.put(self._store, _key(sha256), path)

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""
        if self._folder is not None:
            return (self._folder / _key(sha256)).is_file()
        with _translated():
            try:
                obstore.head(self._store, _key(sha256))
            except (NotFoundError, FileNotFoundError):
                return False
        return True

    def read(self, sha256: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from ``start`` to ``end`` (exclusive); for what fits in memory."""
        with _translated():
            if end is None:
                return bytes(obstore.get(self._store, _key(sha256)).bytes())[start:]
            if end <= start:
                return b""
            return bytes(obstore.get_range(self._store, _key(sha256), start=start, end=end))

    async def stream(self, sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end`` (exclusive) in pieces.

        Each piece is a request of its own: a client that reads slowly holds neither a connection to the store nor more
        than one piece of memory.
        """
        for offset in range(start, end, CHUNK_BYTES):
            with _translated():
                piece = await obstore.get_range_async(
                    self._store, _key(sha256), start=offset, end=min(offset + CHUNK_BYTES, end)
                )
            yield bytes(piece)

    @contextmanager
    def local(self, sha256: str) -> Iterator[Path]:
        """A path to read the blob from; a fetched copy is removed again at the end."""
        if self._folder is not None:
            path = self._folder / _key(sha256)
            if not path.is_file():
                raise StorageUnavailable("A stored file is missing.", reason="blob_missing")
            yield path
            return
        path = self._fetch(sha256)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def delete(self, sha256: str) -> None:
        """Removes the blob; nothing happens if it is not there."""
        with _translated():
            try:
                obstore.delete(self._store, _key(sha256))
            except (NotFoundError, FileNotFoundError):
                return

    def ping(self) -> None:
        """Raises ``StorageUnavailable`` if the store does not answer or, for a folder, cannot be written to."""
        if self._folder is not None:
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise StorageUnavailable("The blob folder cannot be written to.")
            return
        with _translated():
            obstore.list_with_delimiter(self._store, prefix="ping")

    def _place(self, path: Path, target: Path, sha256: str, *, move: bool) -> None:
        if target.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if move and path.stat().st_dev == target.parent.stat().st_dev:
            _sync_file(path)
            path.chmod(BLOB_MODE)
            path.rename(target)
        else:
            _write_checked(_pieces_of(path), target.parent, sha256).rename(target)
        _sync_folder(target.parent)

    def _fetch(self, sha256: str) -> Path:
        with _translated():
            pieces = obstore.get(self._store, _key(sha256)).stream(min_chunk_size=CHUNK_BYTES)
            return _write_checked(pieces, self._cache_dir, sha256)


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def _store_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The HTTP client's options go apart from the store's; users write one flat mapping."""
    store = {key: value for key, value in options.items() if key not in CLIENT_OPTIONS}
    client: dict[str, Any] = {key: value for key, value in options.items() if key in CLIENT_OPTIONS}
    if "allow_http" in client:
        client["allow_http"] = client["allow_http"].lower() == "true"
    return {**store, "client_options": client or None}


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise StorageUnavailable("A stored file is missing.", reason="blob_missing") from error
    except (BaseError, OSError) as error:
        raise StorageUnavailable("The blob store did not answer.") from error


def _write_checked(pieces: Iterable[bytes], folder: Path, sha256: str) -> Path:
    """Writes a temporary file in ``folder``, synced and read-only; only if the pieces have the hash does it stay."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".tmp-", delete=False) as file:
        path = Path(file.name)
        try:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    if digest.hexdigest() != sha256:
        path.unlink()
        raise BlobCorrupt("The bytes do not have the hash they are stored under.")
    path.chmod(BLOB_MODE)
    return path


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
