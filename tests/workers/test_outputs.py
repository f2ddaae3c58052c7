"""What a child may leave behind, and what is not taken from it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.messages import MAX_RESULT_BYTES, ProbeResult
from workers.outputs import NoResult, copy_made, made_file, read_outcome, remove_made

PROBED: dict[str, Any] = {"kind": "probe_result", "load_ms": 1.5, "peak_memory_bytes": 10}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "child"
    (folder / "out").mkdir(parents=True)
    return folder


def write_result(folder: Path, content: str) -> None:
    (folder / "result.json").write_text(content)


def test_a_good_result_is_read(folder: Path) -> None:
    write_result(folder, json.dumps({"result": PROBED}))
    assert read_outcome(folder).result == ProbeResult(load_ms=1.5, peak_memory_bytes=10)


def test_a_missing_result_is_told_apart_from_a_bad_one(folder: Path) -> None:
    with pytest.raises(NoResult):
        read_outcome(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        json.dumps({"result": PROBED, "failure": {"code": "internal", "detail": ""}}),
        json.dumps({"result": PROBED | {"load_ms": float("nan")}}),
        json.dumps({"result": PROBED}).replace("1.5", "1e400"),
        json.dumps({"result": PROBED}).replace("1.5", "-1"),
        json.dumps({"result": PROBED | {"extra": 1}}),
        json.dumps({"failure": {"code": "internal", "detail": "a\0b"}}),
        json.dumps({"failure": {"code": "no such code", "detail": ""}}),
        "[" * 100_000,
    ],
    ids=["empty", "list", "neither", "both", "nan", "1e400", "negative", "unknown", "nul", "code", "deep"],
)
def test_a_result_that_breaks_its_contract_is_refused(folder: Path, content: str) -> None:
    write_result(folder, content)
    with pytest.raises(InvalidResult):
        read_outcome(folder)


def test_a_huge_result_is_refused_without_being_parsed(folder: Path) -> None:
    with (folder / "result.json").open("wb") as file:
        file.truncate(MAX_RESULT_BYTES + 1)
    with pytest.raises(InvalidResult):
        read_outcome(folder)


def test_a_result_behind_a_link_or_pipe_is_refused(folder: Path) -> None:
    (folder / "elsewhere").write_text(json.dumps({"result": PROBED}))
    (folder / "result.json").symlink_to(folder / "elsewhere")
    with pytest.raises(InvalidResult):
        read_outcome(folder)
    (folder / "result.json").unlink()
    os.mkfifo(folder / "result.json")
    with pytest.raises(InvalidResult):
        read_outcome(folder)


def test_a_made_file_is_found(folder: Path) -> None:
    (folder / "out" / "model.onnx").write_bytes(b"x")
    assert made_file(folder, "out/model.onnx", 10) == folder / "out" / "model.onnx"


HOSTILE = ("out/link", "out/hard", "out/pipe", "out/folder", "out/elsewhere/x", "out/etc/passwd")


def make_hostile(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    (folder / "beside").mkdir()
    (folder / "beside" / "x").write_text("x")
    (folder / "out" / "link").symlink_to("/etc/passwd")
    os.link(folder / "secret", folder / "out" / "hard")
    os.mkfifo(folder / "out" / "pipe")
    (folder / "out" / "folder").mkdir()
    (folder / "out" / "elsewhere").symlink_to(folder / "beside")
    (folder / "out" / "etc").symlink_to("/etc")


@pytest.mark.parametrize("relative", ["/etc/passwd", "out/../secret", "secret", "out", "out/missing", *HOSTILE])
def test_files_outside_the_folder_and_links_are_refused(folder: Path, relative: str) -> None:
    make_hostile(folder)
    with pytest.raises(InvalidResult):
        made_file(folder, relative, 1 << 20)


@pytest.mark.parametrize("size", [0, 11])
def test_empty_and_oversized_files_are_refused(folder: Path, size: int) -> None:
    (folder / "out" / "model.onnx").write_bytes(b"x" * size)
    with pytest.raises(InvalidResult):
        made_file(folder, "out/model.onnx", 10)


def copy(folder: Path, relative: str, max_bytes: int = 1 << 20) -> tuple[str, int]:
    return copy_made(folder, relative, max_bytes, folder.parent / "copy", lambda: True)


def test_a_file_of_a_living_child_is_copied_with_its_hash(folder: Path) -> None:
    content = os.urandom((2 << 20) + 7)
    (folder / "out" / "deep").mkdir()
    (folder / "out" / "deep" / "checkpoint").write_bytes(content)
    assert copy(folder, "out/deep/checkpoint", 4 << 20) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (folder.parent / "copy").read_bytes() == content
    remove_made(folder, "out/deep/checkpoint")
    assert list((folder / "out" / "deep").iterdir()) == []
    remove_made(folder, "out/deep/checkpoint")


@pytest.mark.parametrize("relative", ["/etc/passwd", "out/../secret", "secret", "out", "out/missing", *HOSTILE])
def test_nothing_but_plain_files_of_its_own_is_copied_from_a_living_child(folder: Path, relative: str) -> None:
    make_hostile(folder)
    with pytest.raises(InvalidResult):
        copy(folder, relative)
    remove_made(folder, relative)
    assert (folder / "secret").read_text() == "secret"
    assert Path("/etc/passwd").exists()
    assert (folder / "beside" / "x").exists()


@pytest.mark.parametrize("size", [0, 11])
def test_an_empty_or_oversized_file_of_a_living_child_is_not_copied(folder: Path, size: int) -> None:
    (folder / "out" / "checkpoint").write_bytes(b"x" * size)
    with pytest.raises(InvalidResult):
        copy(folder, "out/checkpoint", 10)


def test_a_file_that_grows_while_it_is_copied_is_given_up_at_the_limit(folder: Path) -> None:
    path = folder / "out" / "checkpoint"
    path.write_bytes(b"x")

    def grow() -> bool:
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
        return True

    with pytest.raises(InvalidResult):
        copy_made(folder, "out/checkpoint", 8 << 20, folder.parent / "copy", grow)
    assert (folder.parent / "copy").stat().st_size <= 8 << 20


def test_a_copy_that_nobody_wants_any_more_ends(folder: Path) -> None:
    (folder / "out" / "checkpoint").write_bytes(b"x")
    with pytest.raises(InvalidResult):
        copy_made(folder, "out/checkpoint", 10, folder.parent / "copy", lambda: False)
