"""What a child may leave behind, and what is not taken from it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.messages import MAX_RESULT_BYTES, ProbeResult
from workers.outputs import NoResult, made_file, read_outcome

PROBED: dict[str, Any] = {"kind": "probe_result", "load_ms": 1.5, "peak_memory_bytes": 10}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


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


@pytest.mark.parametrize(
    "relative", ["/etc/passwd", "out/../secret", "secret", "out", "out/missing", "out/link", "out/hard", "out/deep/x"]
)
def test_files_outside_the_folder_and_links_are_refused(folder: Path, relative: str) -> None:
    (folder / "secret").write_text("secret")
    (folder / "out" / "link").symlink_to("/etc/passwd")
    os.link(folder / "secret", folder / "out" / "hard")
    (folder / "out" / "deep").symlink_to("/etc")
    with pytest.raises(InvalidResult):
        made_file(folder, relative, 1 << 20)


@pytest.mark.parametrize("size", [0, 11])
def test_empty_and_oversized_files_are_refused(folder: Path, size: int) -> None:
    (folder / "out" / "model.onnx").write_bytes(b"x" * size)
    with pytest.raises(InvalidResult):
        made_file(folder, "out/model.onnx", 10)
