"""A repeated POST does nothing twice."""

import asyncio

import httpx
import pytest
from sqlalchemy import func, select

from app.db import Database
from app.idempotency import repository
from app.idempotency.records import IdempotencyRecord
from app.keys.records import KeyRecord
from app.models.records import ModelRecord
from tests.builders import add_key, add_project, safetensors
from tests.inspector import Inspector

KEY = {"Idempotency-Key": "k1"}
CONTENT = safetensors(b"weights")


async def test_a_replay_of_a_new_key_holds_no_secret(client: httpx.AsyncClient, database: Database) -> None:
    admin = {"Authorization": f"Bearer {add_key(database, 'admin')}"}
    body = {"project": "default", "scopes": ["read"]}
    first = await client.post("/v1/keys", json=body, headers=admin | KEY)
    again = await client.post("/v1/keys", json=body, headers=admin | KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    shown = first.json()
    secret = shown.pop("secret")
    assert again.json() == shown
    with database.reading() as session:
        assert secret not in str([vars(record) for record in session.scalars(select(IdempotencyRecord))])
        assert session.scalar(select(func.count()).select_from(KeyRecord)) == 2


async def test_the_same_key_with_another_request_is_refused(client: httpx.AsyncClient, database: Database) -> None:
    client.headers["Authorization"] = f"Bearer {add_key(database, 'admin')}"
    await client.post("/v1/keys", json={"name": "a"}, headers=KEY)
    for path, body in [("/v1/keys", {"name": "b"}), ("/v1/jobs", {"name": "a"})]:
        response = await client.post(path, json=body, headers=KEY)
        assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reused")


async def test_projects_do_not_share_keys(client: httpx.AsyncClient, database: Database) -> None:
    for project in ("one", "two"):
        headers = {"Authorization": f"Bearer {add_key(database, 'admin', project=project)}"}
        response = await client.post("/v1/keys", json={"name": project}, headers=headers | KEY)
        assert (response.status_code, "idempotent-replayed" in response.headers) == (201, False)


async def upload(client: httpx.AsyncClient, content: bytes, boundary: str) -> httpx.Response:
    headers = {**KEY, "Content-Type": f"multipart/form-data; boundary={boundary}"}
    return await client.post("/v1/models", files={"file": ("m.safetensors", content)}, headers=headers)


async def test_uploads_are_compared_by_their_parts(client: httpx.AsyncClient, inspector: Inspector) -> None:
    first = await upload(client, CONTENT, "one")
    again = await upload(client, CONTENT, "two")
    other = await upload(client, safetensors(b"others"), "one")
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert other.json()["code"] == "idempotency_key_reused"


async def test_duplicates_at_once_have_one_effect(
    client: httpx.AsyncClient, inspector: Inspector, database: Database
) -> None:
    responses = await asyncio.gather(*(upload(client, CONTENT, f"b{i}") for i in range(5)))
    assert {response.status_code for response in responses} == {201}
    assert sum("idempotent-replayed" in response.headers for response in responses) == 4
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(ModelRecord)) == 1


async def test_a_refusal_is_replayed_too(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/keys", json={"scopes": ["root"]}, headers=KEY)
    again = await client.post("/v1/keys", json={"scopes": ["root"]}, headers=KEY)
    assert (first.status_code, again.status_code) == (422, 422)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/problem+json"


async def test_a_bad_key_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/keys", json={}, headers={"Idempotency-Key": "k" * 256})
    assert (response.status_code, response.json()["reason"]) == (400, "idempotency_key_invalid")


@pytest.mark.parametrize("finished", [True, False])
def test_keys_are_taken_anew_when_old_or_abandoned(any_database: Database, finished: bool) -> None:
    with any_database.transaction() as session:
        project = add_project(session).id
        assert repository.claim(session, project, "k", 60, 60)
        assert not repository.claim(session, project, "k", 60, 60)
        if finished:
            repository.complete(session, project, "k", fingerprint="f", status=201, headers={}, body="{}")
    with any_database.transaction() as session:
        assert repository.claim(session, project, "k", 60, -1) is not finished
        assert repository.claim(session, project, "k", -1, 60)
    assert repository.delete_old(any_database, -1) == 1


async def test_another_key_of_the_project_does_not_see_the_replay(
    client: httpx.AsyncClient, database: Database
) -> None:
    admin, reader = add_key(database, "admin"), add_key(database, "read")
    await client.post("/v1/keys", json={}, headers={"Authorization": f"Bearer {admin}"} | KEY)
    response = await client.post("/v1/keys", json={}, headers={"Authorization": f"Bearer {reader}"} | KEY)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reused")
