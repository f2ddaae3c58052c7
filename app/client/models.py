"""Models of the service."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.client.connection import Connection
from app.client.inspection import wait_until_inspected
from app.client.objects import Job, Model
from app.client.pages import pages
from app.client.uploads import upload


class Models:
    """Upload, list, show, rename and delete models."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        license: str | None = None,  # noqa: A002 - the field's public name
        wait_seconds: float = 300.0,
        idempotency_key: str | None = None,
    ) -> Model:
        """Sends a model and waits until it has been inspected.

        Args:
            path: A file, or a directory (Hugging Face layout, ONNX with external data) that is sent as a ZIP.
            name: Shown name; the file's own by default.
            labels: Free key/value pairs.
            license: The model's licence.
            wait_seconds: How long to wait for the inspection; 0 returns what the service answered.
            idempotency_key: Repeats with this key do not upload twice.

        Raises:
            Refused: The format is never loaded, or the content is unsafe, malformed or too large.
            WaitTimeout: The inspection takes longer than ``wait_seconds``.
        """
        source = Path(path)
        fields = {"name": name or source.resolve().name, "labels": labels, "license": license}
        response = upload(self._connection, "/v1/models", source, fields, idempotency_key)
        model = Model.model_validate(response.json())
        return self.wait(model.id, wait_seconds) if wait_seconds and model.status == "inspecting" else model

    def promote(self, artifact_id: str, *, name: str | None = None) -> Model:
        """Makes an artifact a model of its own, so that jobs chain."""
        body: dict[str, Any] = {"artifact": artifact_id}
        if name:
            body["name"] = name
        return Model.model_validate(self._connection.post("/v1/models", body))

    def analyze(self, model_id: str, *, idempotency_key: str | None = None, **options: Any) -> Job:
        """Queues a job that measures how sensitive the model is to the quantization of each layer.

        Args:
            model_id: Which model.
            idempotency_key: Repeats with this key queue no second job.
            options: The body of ``POST /v1/models/{id}/analyze``: ``data``, ``bits``, ``algorithm`` and so on.
        """
        answer = self._connection.post(f"/v1/models/{model_id}/analyze", options, idempotency_key=idempotency_key)
        return Job.model_validate(answer)

    def wait(self, model_id: str, wait_seconds: float = 300.0) -> Model:
        """The model once it is ``ready``; raises ``Refused`` when it was rejected."""
        return wait_until_inspected(lambda: self.get(model_id), wait_seconds)

    def get(self, model_id: str) -> Model:
        """One model."""
        return Model.model_validate(self._connection.get(f"/v1/models/{model_id}"))

    def list(self, **filters: Any) -> Iterator[Model]:
        """All models, newest first, fetched page by page; filters as in the API, such as ``status="ready"``."""
        return pages(self._connection, "/v1/models", Model, filters)

    def delete(self, model_id: str) -> None:
        """Deletes a model that no job uses."""
        self._connection.request("DELETE", f"/v1/models/{model_id}")
