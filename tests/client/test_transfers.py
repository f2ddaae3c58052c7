import hashlib
import io
import json
import zipfile
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import pytest

from app.client import errors
from app.client.client import Client
from tests.client.conftest import Script, Seen, answer, broken, hang_up

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARTIFACT = {
    "id": "art_1",
    "object": "artifact",
    "job": "job_1",
    "kind": "model",
    "format": "onnx",
    "name": "small.onnx",
    "sha256": SHA256,
    "size_bytes": len(CONTENT),
}
DESCRIPTION = json.dumps(ARTIFACT).encode()


def model(status: str) -> bytes:
    fields = {"id": "mdl_1", "status": status, "name": "m", "sha256": SHA256, "size_bytes": 3}
    error = {"code": "invalid_model", "detail": "truncated"} if status == "rejected" else None
    return json.dumps(fields | {"error": error, "created_at": "2026-11-24T00:00:00Z"}).encode()


def form(request: Seen) -> dict[str, tuple[str | None, bytes]]:
    """The parts of a multipart request: file name and content by field."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    parts = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        parts[str(name)] = (part.get_filename(), part.get_payload(decode=True))
    return parts


def test_an_upload_carries_file_name_and_labels_and_waits_for_the_inspection(
    client: Client, script: Script, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(CONTENT)
    script.then(answer(202, model("inspecting")), answer(200, model("inspecting")), answer(200, model("ready")))
    assert client.models.upload(file, labels={"team": "a"}).status == "ready"
    parts = form(script.seen[0])
    assert parts["file"] == ("m.onnx", CONTENT)
    assert parts["name"][1] == b"m.onnx"
    assert json.loads(parts["labels"][1]) == {"team": "a"}


def test_an_upload_that_lost_its_connection_is_sent_whole_again_under_the_same_key(
    client: Client, script: Script, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(CONTENT)
    script.then(hang_up, answer(201, model("ready")))
    client.models.upload(file)
    first, second = script.seen
    assert form(first)["file"] == form(second)["file"] == ("m.onnx", CONTENT)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_a_rejected_upload_raises_with_the_reason(client: Client, script: Script, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x")
    script.then(answer(202, model("inspecting")), answer(200, model("rejected")))
    with pytest.raises(errors.Refused, match="invalid_model: truncated"):
        client.models.upload(file)


def test_a_directory_is_sent_as_a_zip_that_is_the_same_every_time(
    client: Client, script: Script, tmp_path: Path
) -> None:
    folder = tmp_path / "network"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text("[]")
    script.then(answer(201, model("ready")), answer(201, model("ready")))
    client.models.upload(folder)
    (folder / "config.json").touch()
    client.models.upload(folder)
    first, second = (form(request)["file"] for request in script.seen)
    assert first == second
    assert first[0] == "network.zip"
    assert zipfile.ZipFile(io.BytesIO(first[1])).namelist() == ["1_Pooling/config.json", "config.json"]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(client: Client, script: Script, tmp_path: Path) -> None:
    rest = CONTENT[4000:]
    script.then(
        answer(200, DESCRIPTION),
        broken(200, CONTENT[:4000], len(CONTENT)),
        answer(206, rest, Content_Range=f"bytes 4000-{len(CONTENT) - 1}/{len(CONTENT)}"),
    )
    target = client.artifacts.download("art_1", tmp_path)
    assert target == tmp_path / "small.onnx"
    assert target.read_bytes() == CONTENT
    assert script.seen[2].headers["range"] == "bytes=4000-"
    assert list(tmp_path.iterdir()) == [target]


def test_a_server_that_ignores_the_range_is_read_from_the_start(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / f"small.onnx.{SHA256[:16]}.part").write_bytes(CONTENT[:100])
    script.then(answer(200, DESCRIPTION), answer(200, CONTENT))
    assert client.artifacts.download("art_1", tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_artifacts_name(client: Client, script: Script, tmp_path: Path) -> None:
    script.then(answer(200, DESCRIPTION), answer(200, CONTENT[::-1]))
    with pytest.raises(errors.DigestMismatch):
        client.artifacts.download("art_1", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_transferred_again(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(CONTENT)
    script.then(answer(200, DESCRIPTION))
    client.artifacts.download("art_1", tmp_path)
    assert len(script.seen) == 1


def test_a_hostile_artifact_name_stays_inside_the_directory(client: Client, script: Script, tmp_path: Path) -> None:
    description = json.dumps(ARTIFACT | {"name": "../../evil.onnx"}).encode()
    script.then(answer(200, description), answer(200, CONTENT))
    assert client.artifacts.download("art_1", tmp_path) == tmp_path / "evil.onnx"
