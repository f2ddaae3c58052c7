"""Keys, scopes and the wall between projects, walked over every served path."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.keyed import Projects, create_key
from tests.trained import write_onnx

pytestmark = pytest.mark.e2e

OPEN_PATHS = {"/healthz", "/readyz", "/metrics", "/v1/version", "/openapi.json", "/docs", "/"}
"""What needs no key."""


BODIES: dict[str, dict[str, Any]] = {
    "/v1/jobs": {"model": "{model_id}", "recipe": [{"technique": "quantize"}]},
    "/v1/models": {"artifact": "{artifact_id}"},
}


def body_for(projects: Projects, path: str) -> dict[str, Any]:
    plain = path.removesuffix("/validate").removesuffix("/estimate")
    found = BODIES.get(plain, {"labels": {}})
    return {name: projects.filled(value) if isinstance(value, str) else value for name, value in found.items()}


def test_no_path_shows_an_object_to_a_stranger(projects: Projects) -> None:
    checked = 0
    for method, path in projects.operations:
        if "{" not in path:
            continue
        options = {"json": body_for(projects, path)} if method in {"POST", "PATCH", "PUT"} else {}
        response = projects.request(method, projects.filled(path), "stranger", **options)
        # Keys are the admin's of the whole service; everyone else is turned away from all of them.
        expected = ("forbidden", 403) if path.startswith("/v1/keys") else ("not_found", 404)
        assert (response.json()["code"], response.status_code) == expected, (method, path, response.text)
        checked += 1
    assert checked > 15


def test_no_list_holds_anything_of_others(projects: Projects) -> None:
    own = set(projects.ids.values())
    for method, path in projects.operations:
        if method != "GET" or "{" in path or not path.startswith("/v1/"):
            continue
        query = {"job": projects.ids["job_id"], "model": projects.ids["model_id"]}
        for params in ({}, query):
            text = projects.request("GET", path, "stranger", params=params).text
            assert not [found for found in own if f'"id":"{found}"' in text.replace(" ", "")], path


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/validate", "/v1/jobs/estimate", "/v1/models"])
def test_others_objects_inside_a_request_are_unknown(path: str, projects: Projects) -> None:
    response = projects.request("POST", path, "stranger", json=body_for(projects, path))

    assert response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY}
    listed = projects.request("GET", "/v1/jobs", "stranger").json()["data"]
    assert listed == []


def test_others_data_in_a_job_is_unknown(projects: Projects, tmp_path: Path) -> None:
    content = write_onnx("mlp", tmp_path / "digits.onnx").read_bytes()
    files = {"file": ("digits.onnx", content)}
    model = projects.request("POST", "/v1/models", "stranger", data={"name": "mine"}, files=files).json()
    body = {
        "model": model["id"],
        "recipe": [{"technique": "quantize"}],
        "data": {"evaluation": projects.ids["dataset_id"]},
    }

    response = projects.request("POST", "/v1/jobs", "stranger", json=body)

    assert model["id"] != projects.ids["model_id"]
    assert response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY}


def test_every_path_needs_a_key(projects: Projects) -> None:
    wrong = ("prk_", "prk_00000000_" + "A" * 43, projects.keys["owner"][:-1], projects.keys["owner"][:13])
    for method, path in projects.operations:
        if path in OPEN_PATHS or not path.startswith("/v1/"):
            continue
        for key in (None, *wrong):
            response = projects.request(method, projects.filled(path), key)
            assert response.status_code == httpx.codes.UNAUTHORIZED, (method, path, key)
            assert response.json()["code"] == "unauthorized"
            assert "www-authenticate" in response.headers


def test_wrong_keys_are_answered_alike(projects: Projects) -> None:
    texts = set()
    for key in ("prk_", "prk_00000000_" + "A" * 43, projects.keys["owner"][:-1] + "x"):
        body = projects.request("GET", "/v1/models", key).json()
        texts.add((body["title"], body["detail"], body["code"]))
    assert len(texts) == 1


def test_revoked_key_opens_nothing(projects: Projects) -> None:
    before = {found["id"] for found in projects.request("GET", "/v1/keys", "owner").json()["data"]}
    secret = create_key(projects.service, "ours", ["read"], projects.keys["admin"])
    after = projects.request("GET", "/v1/keys", "owner").json()["data"]
    created = next(found for found in after if found["id"] not in before)
    assert projects.request("GET", "/v1/models", secret).status_code == httpx.codes.OK

    revoked = projects.request("DELETE", f"/v1/keys/{created['id']}", "owner")

    assert revoked.status_code in {httpx.codes.OK, httpx.codes.NO_CONTENT}
    assert projects.request("GET", "/v1/models", secret).status_code == httpx.codes.UNAUTHORIZED


def test_reader_changes_nothing(projects: Projects) -> None:
    harmless = {"/v1/jobs/validate", "/v1/jobs/estimate"}
    for method, path in projects.operations:
        if method == "GET" or path in harmless or not path.startswith("/v1/"):
            continue
        options = {} if method == "DELETE" else {"json": body_for(projects, path)}
        response = projects.request(method, projects.filled(path), "reader", **options)
        assert response.status_code == httpx.codes.FORBIDDEN, (method, path, response.text)
        assert response.json()["code"] == "forbidden"


@pytest.mark.parametrize("key", ["reader", "writer"])
def test_only_admins_reach_keys(key: str, projects: Projects) -> None:
    body = {"project": "ours", "scopes": ["admin"], "name": "mine"}

    assert projects.request("GET", "/v1/keys", key).status_code == httpx.codes.FORBIDDEN
    assert projects.request("POST", "/v1/keys", key, json=body).status_code == httpx.codes.FORBIDDEN


def test_secrets_are_shown_once_and_kept_nowhere(projects: Projects) -> None:
    listed = projects.request("GET", "/v1/keys", "owner").text
    files = [path for path in projects.service.folder.rglob("*") if path.is_file() and path.stat().st_size < 64 << 20]
    for secret in projects.keys.values():
        assert secret not in listed
        assert secret not in projects.service.log
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []


def test_replayed_key_creation_holds_no_secret(projects: Projects) -> None:
    headers = {"Authorization": f"Bearer {projects.keys['admin']}", "Idempotency-Key": "create-once"}
    body = {"project": "ours", "scopes": ["read"], "name": "replayed"}

    first = httpx.post(f"{projects.service.url}/v1/keys", json=body, headers=headers)
    again = httpx.post(f"{projects.service.url}/v1/keys", json=body, headers=headers)

    assert again.headers["idempotent-replayed"] == "true"
    assert first.json()["id"] == again.json()["id"]
    secret = max((value for value in first.json().values() if isinstance(value, str)), key=len)
    assert secret.startswith("prk_")
    assert secret not in again.text


def test_idempotency_keys_are_private_to_a_project(projects: Projects) -> None:
    headers = {"Idempotency-Key": "shared-by-chance"}
    body = body_for(projects, "/v1/jobs")
    ours = httpx.post(
        f"{projects.service.url}/v1/jobs",
        json=body,
        headers=headers | {"Authorization": f"Bearer {projects.keys['writer']}"},
    )
    theirs = httpx.post(
        f"{projects.service.url}/v1/jobs",
        json=body,
        headers=headers | {"Authorization": f"Bearer {projects.keys['stranger']}"},
    )

    assert ours.status_code == httpx.codes.ACCEPTED
    assert theirs.status_code in {httpx.codes.NOT_FOUND, httpx.codes.UNPROCESSABLE_ENTITY}


FORBIDDEN_FIELDS = ("project_id", "status", "sha256", "storage_path", "tenant_id", "attempt", "metrics", "token")


@pytest.mark.parametrize("field", FORBIDDEN_FIELDS)
def test_fields_that_are_not_the_callers_are_refused(field: str, projects: Projects) -> None:
    for path in ("/v1/models/{model_id}", "/v1/jobs/{job_id}"):
        response = projects.request("PATCH", projects.filled(path), "writer", json={"labels": {}, field: "x"})
        assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY, path
    job = body_for(projects, "/v1/jobs") | {field: "x"}
    assert projects.request("POST", "/v1/jobs", "writer", json=job).status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_answers_hold_no_paths_hashes_of_keys_or_projects(projects: Projects) -> None:
    for method, path in projects.operations:
        if method == "GET" and path.startswith("/v1/") and "content" not in path and "events" not in path:
            text = projects.request("GET", projects.filled(path), "owner", params={"job": projects.ids["job_id"]}).text
            assert str(projects.service.folder) not in text, path
            assert "project_id" not in text, path
