"""A service that wants keys: one project that owns one of everything, and one that owns nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.live import LiveService
from tests.trained import write_npz, write_onnx


@dataclass(frozen=True)
class Projects:
    """A keyed service; project ``ours`` owns one of everything, ``theirs`` nothing."""

    service: LiveService
    keys: dict[str, str]
    ids: dict[str, str]
    operations: list[tuple[str, str]]

    def request(self, method: str, path: str, key: str | None, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys.get(key, key)}"} if key else {}
        return httpx.request(method, self.service.url + path, headers=headers, timeout=60, **options)

    def filled(self, path: str) -> str:
        """``path`` with the ids of project ``ours`` in place of its parameters."""
        return path.format_map(self.ids)


@contextmanager
def keyed_service(folder: Path) -> Iterator[Projects]:
    """Starts the service, makes the keys, fills project ``ours``."""
    with LiveService(folder / "data") as service:
        admin = create_key(service, "default", ["admin"], None)
        keys = {"admin": admin}
        for name, project, scope in (
            ("writer", "ours", "write"),
            ("reader", "ours", "read"),
            ("owner", "ours", "admin"),
            ("stranger", "theirs", "write"),
        ):
            keys[name] = create_key(service, project, [scope], admin)
        service.client.headers["Authorization"] = f"Bearer {keys['writer']}"
        model = service.ready("model", write_onnx("mlp", folder / "digits.onnx"))
        dataset = service.ready("dataset", write_npz("mlp", folder / "test.npz"))
        job = service.succeeded(model["id"], [{"technique": "quantize"}], data={"evaluation": dataset["id"]})
        ids = {"model_id": model["id"], "dataset_id": dataset["id"], "job_id": job["id"]}
        ids |= {"artifact_id": job["artifacts"][0]["id"], "key_id": own_key(service, keys["owner"])}
        paths = httpx.get(f"{service.url}/openapi.json").json()["paths"]
        operations = [(method.upper(), path) for path, methods in paths.items() for method in methods]
        yield Projects(service, keys, ids, operations)


def create_key(service: LiveService, project: str, scopes: list[str], admin: str | None) -> str:
    headers = {"Authorization": f"Bearer {admin}"} if admin else {}
    body = {"project": project, "scopes": scopes, "name": f"{project} {scopes[0]}"}
    created = service.client.post("/v1/keys", json=body, headers=headers).raise_for_status().json()
    secrets = [value for value in created.values() if isinstance(value, str) and value.startswith("prk_")]
    return max(secrets, key=len)


def own_key(service: LiveService, owner: str) -> str:
    listed = service.client.get("/v1/keys", headers={"Authorization": f"Bearer {owner}"}).raise_for_status().json()
    return str(next(key["id"] for key in listed["data"] if key["project"] == "ours"))
