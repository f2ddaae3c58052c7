"""Datasets of the service."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.client.connection import Connection
from app.client.inspection import wait_until_inspected
from app.client.objects import Dataset
from app.client.pages import pages
from app.client.uploads import upload


class Datasets:
    """Upload, list, show and delete datasets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        target_column: str | None = None,
        task: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        wait_seconds: float = 300.0,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Sends a dataset and waits until it has been inspected.

        Args:
            path: ``.npz``, ``.csv``, ``.parquet``, ``.jsonl``, a ZIP of one folder per class, or such a folder.
            name: Shown name; the file's own by default.
            labels: Free key/value pairs.
            target_column: Which column or array holds the labels, if it is not called ``target``.
            task: Overrides what the service detects.
            preprocessing: How images or texts become the model's inputs.
            wait_seconds: How long to wait for the inspection; 0 returns what the service answered.
            idempotency_key: Repeats with this key do not upload twice.

        Raises:
            Refused: The content is malformed, unsafe or too large.
            WaitTimeout: The inspection takes longer than ``wait_seconds``.
        """
        source = Path(path)
        fields = {
            "name": name or source.resolve().name,
            "labels": labels,
            "target_column": target_column,
            "task": task,
            "preprocessing": preprocessing,
        }
        response = upload(self._connection, "/v1/datasets", source, fields, idempotency_key)
        dataset = Dataset.model_validate(response.json())
        return self.wait(dataset.id, wait_seconds) if wait_seconds and dataset.status == "inspecting" else dataset

    def wait(self, dataset_id: str, wait_seconds: float = 300.0) -> Dataset:
        """The dataset once it is ``ready``; raises ``Refused`` when it was rejected."""
        return wait_until_inspected(lambda: self.get(dataset_id), wait_seconds)

    def get(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return Dataset.model_validate(self._connection.get(f"/v1/datasets/{dataset_id}"))

    def list(self, **filters: Any) -> Iterator[Dataset]:
        """All datasets, newest first, fetched page by page."""
        return pages(self._connection, "/v1/datasets", Dataset, filters)

    def delete(self, dataset_id: str) -> None:
        """Deletes a dataset that no job uses."""
        self._connection.request("DELETE", f"/v1/datasets/{dataset_id}")
