"""Who gets in, and as what."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.config import Settings
from app.db import Database
from app.keys.records import KeyRecord
from app.keys.service import Exposed, bootstrap, check_exposure
from app.security import describe_key, generate_key
from tests.builders import add_key


async def test_keyless_access_ends_with_the_first_key(client: httpx.AsyncClient) -> None:
    created = await client.post("/v1/keys", json={"project": "default", "scopes": ["admin"], "name": "first"})
    assert created.status_code == 201
    assert (await client.get("/v1/models")).status_code == 401
    headers = {"Authorization": f"Bearer {created.json()['secret']}"}
    assert (await client.get("/v1/models", headers=headers)).status_code == 200
    assert (await client.delete(f"/v1/keys/{created.json()['id']}", headers=headers)).status_code == 204
    for given in ({}, headers):
        assert (await client.get("/v1/models", headers=given)).status_code == 401


async def test_every_wrong_key_gets_the_same_answer(client: httpx.AsyncClient, database: Database) -> None:
    good = add_key(database, "admin")
    expired = add_key(database, "admin")
    with database.transaction() as session:
        record = session.query(KeyRecord).filter_by(public_id=describe_key(expired).public_id).one()
        record.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    wrong = [good[:-1] + ("A" if good[-1] != "A" else "B"), good[:12], expired, generate_key().secret, "", "é"]
    answers = set()
    for secret in [*wrong, None]:
        headers = {"Authorization": f"Bearer {secret}".encode()} if secret is not None else {}
        response = await client.get("/v1/models", headers=headers)
        assert response.headers["www-authenticate"].startswith("Bearer")
        body = response.json()
        body.pop("request_id")
        answers.add((response.status_code, str(body)))
    assert len(answers) == 1
    assert answers.pop()[0] == 401
    assert (await client.get("/v1/models", headers={"Authorization": f"Basic {good}"})).status_code == 401


@pytest.mark.parametrize(
    ("scope", "allowed"), [("read", {"GET"}), ("write", {"GET", "POST"}), ("admin", {"GET", "POST", "ADMIN"})]
)
async def test_scopes(client: httpx.AsyncClient, database: Database, scope: str, allowed: set[str]) -> None:
    client.headers["Authorization"] = f"Bearer {add_key(database, scope)}"  # type: ignore[arg-type] # of the table
    found = {"GET": await client.get("/v1/models")}
    found["POST"] = await client.post("/v1/models", json={"artifact": "art_none"})
    found["ADMIN"] = await client.get("/v1/keys")
    assert {name for name, response in found.items() if response.status_code != 403} == allowed


async def test_a_secret_is_shown_once_and_never_kept(client: httpx.AsyncClient, database: Database) -> None:
    client.headers["Authorization"] = f"Bearer {add_key(database, 'admin')}"
    created = (await client.post("/v1/keys", json={"project": "other", "scopes": ["write", "read"]})).json()
    shown = (await client.get(f"/v1/keys/{created['id']}")).json()
    assert created.pop("secret").startswith(created["prefix"] + "_")
    assert shown == created
    assert (shown["project"], shown["scopes"]) == ("other", ["read", "write"])
    assert "secret" not in (await client.get("/v1/keys")).text
    with database.reading() as session:
        assert len(session.get_one(KeyRecord, created["id"]).sha256) == 64


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"project": "Ä"},
        {"expires_at": "2020-01-01T00:00:00"},
        {"sha256": "x"},
    ],
)
async def test_bad_keys_are_refused(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await client.post("/v1/keys", json=body)).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
    ],
)
async def test_keyless_access_is_for_this_machine_alone(
    client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    assert (await client.get("/v1/models", headers=headers)).status_code == status


def test_a_public_address_without_keys_is_refused(database: Database, settings: Settings) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0"})
    with pytest.raises(Exposed):
        check_exposure(database, public)
    add_key(database, "admin")
    check_exposure(database, public)


def test_the_bootstrap_key_is_made_once(database: Database, settings: Settings) -> None:
    secret = generate_key().secret
    given = Settings(data_dir=settings.data_dir, redis_url=settings.redis_url, bootstrap_key=secret)  # type: ignore[arg-type] # parsed
    bootstrap(database, given)
    bootstrap(database, given)
    with database.reading() as session:
        keys = session.query(KeyRecord).all()
    assert [(key.name, key.scopes) for key in keys] == [("bootstrap", ["admin"])]
