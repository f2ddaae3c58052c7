"""Artifacts: shown, fetched, promoted, traced back."""

import hashlib
from pathlib import Path

import httpx
import pytest

from app.artifacts.records import ArtifactRecord
from app.artifacts.repository import hold_blob, store_file
from app.db import Database
from app.jobs.records import JobRecord
from app.storage import Storage
from tests.builders import add_model, add_project, safetensors
from tests.inspector import Inspector

CONTENT = safetensors(b"smaller")


@pytest.fixture
def artifact(database: Database, storage: Storage, tmp_path: Path) -> ArtifactRecord:
    """What a finished job on a model made."""
    path = tmp_path / "artifact"
    path.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    size = store_file(database, storage, path, sha256)
    with database.transaction() as session:
        project = add_project(session)
        model = add_model(session, project.id)
        job = JobRecord(
            project_id=project.id,
            kind="compress",
            status="succeeded",
            capability="cpu",
            model_id=model.id,
            spec={},
            timeout_seconds=1.0,
        )
        session.add(job)
        session.flush()
        hold_blob(session, sha256, size)
        record = ArtifactRecord(
            project_id=project.id,
            job_id=job.id,
            kind="model",
            format="safetensors",
            name="größer.safetensors",
            sha256=sha256,
            size_bytes=size,
            load="load_file(...)",
        )
        session.add(record)
    return record


async def test_an_artifact_is_shown_and_fetched(client: httpx.AsyncClient, artifact: ArtifactRecord) -> None:
    shown = (await client.get(f"/v1/artifacts/{artifact.id}")).json()
    assert (shown["object"], shown["job"], shown["kind"]) == ("artifact", artifact.job_id, "model")
    assert shown["load"] == "load_file(...)"
    content = await client.get(f"/v1/artifacts/{artifact.id}/content")
    assert hashlib.sha256(content.content).hexdigest() == shown["sha256"]
    disposition = content.headers["content-disposition"]
    assert disposition == "attachment; filename=\"gr__er.safetensors\"; filename*=UTF-8''gr%C3%B6%C3%9Fer.safetensors"


async def test_a_promoted_artifact_is_a_model_with_a_lineage(
    client: httpx.AsyncClient, artifact: ArtifactRecord, database: Database, inspector: Inspector
) -> None:
    response = await client.post("/v1/models", json={"artifact": artifact.id, "name": "small"})
    assert response.status_code == 201, response.text
    promoted = response.json()
    assert (promoted["name"], promoted["sha256"]) == ("small", artifact.sha256)
    with database.reading() as session:
        source = session.get_one(JobRecord, artifact.job_id).model_id
    lineage = (await client.get(f"/v1/models/{promoted['id']}/lineage")).json()
    assert lineage["made_from"] == [{"artifact": artifact.id, "job": artifact.job_id, "model": source}]
    down = (await client.get(f"/v1/models/{source}/lineage")).json()
    assert down["made"] == [{"job": artifact.job_id, "artifact": artifact.id, "model": promoted["id"]}]
    assert (await client.post("/v1/models", json={"artifact": artifact.id})).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"artifact": "art_none"}', 404), (b"{", 400), (b'{"source": "s3://x"}', 422), (b'{"upload": "upl_1"}', 422)],
)
async def test_what_cannot_be_promoted(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/v1/models", content=body, headers=headers)
    assert response.status_code == status, response.text
