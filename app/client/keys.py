"""API keys of the service; all of it needs the ``admin`` scope."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.client.connection import Connection
from app.client.objects import ApiObject
from app.client.pages import pages


class Key(ApiObject):
    """An API key. ``key``, the secret itself, is there only in the answer to its creation."""

    project: str
    name: str = ""
    scopes: list[str]
    key: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None


class Keys:
    """Create, list and revoke keys."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self, *, project: str = "default", scopes: Sequence[str], name: str = "", expires_at: str | None = None
    ) -> Key:
        """A new key; its secret is shown this once. A new project name makes the project."""
        body: dict[str, Any] = {"project": project, "scopes": list(scopes), "name": name}
        if expires_at:
            body["expires_at"] = expires_at
        return Key.model_validate(self._connection.post("/v1/keys", body))

    def list(self) -> Iterator[Key]:
        """All keys, newest first, without their secrets."""
        return pages(self._connection, "/v1/keys", Key, {})

    def revoke(self, key_id: str) -> None:
        """Ends a key at once."""
        self._connection.request("DELETE", f"/v1/keys/{key_id}")
