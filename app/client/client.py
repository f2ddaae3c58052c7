"""The Python client: ``from pressroom import Client``."""

import os
from types import TracebackType
from typing import Any, Self

import httpx

from app.client.artifacts import Artifacts
from app.client.connection import Connection
from app.client.datasets import Datasets
from app.client.errors import ClientError
from app.client.jobs import Jobs
from app.client.keys import Keys
from app.client.models import Models

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """A service, seen from Python.

    Example:
        >>> with Client("http://127.0.0.1:8000") as pressroom:  # doctest: +SKIP
        ...     model = pressroom.models.upload("model.onnx")
        ...     job = pressroom.jobs.submit({"model": model.id, "recipe": [{"technique": "quantize"}]})
        ...     job = pressroom.jobs.wait(job.id)
        ...     pressroom.artifacts.download(pressroom.jobs.artifacts(job.id)[0].id, "small.onnx")

    Args:
        base_url: Where the service is; by default ``PRESSROOM_URL``, else the local one.
        api_key: ``prk_…``; by default ``PRESSROOM_API_KEY``.
        retries: Repetitions after lost connections and answers that ask for another try.
        transport: An ``httpx`` transport, for tests and proxies.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(
            base_url or os.environ.get("PRESSROOM_URL") or DEFAULT_URL,
            api_key=api_key or os.environ.get("PRESSROOM_API_KEY"),
            retries=retries,
            transport=transport,
        )
        self.models = Models(self._connection)
        self.datasets = Datasets(self._connection)
        self.jobs = Jobs(self._connection)
        self.artifacts = Artifacts(self._connection)
        self.keys = Keys(self._connection)

    @property
    def base_url(self) -> str:
        """The service's address."""
        return self._connection.base_url

    def techniques(self, *, model: str | None = None) -> list[dict[str, Any]]:
        """The catalogue; with ``model`` each entry says whether it applies and why not."""
        return list(self._connection.get("/v1/techniques", params={"model": model} if model else None)["data"])

    def workers(self) -> list[dict[str, Any]]:
        """The workers that are or were there."""
        return list(self._connection.get("/v1/workers")["data"])

    def version(self) -> dict[str, Any]:
        """What the service runs."""
        return dict(self._connection.get("/v1/version"))

    def ready(self) -> bool:
        """Whether database, broker and storage all answer; asks once."""
        try:
            return self._connection.request("GET", "/readyz", retry=False).is_success
        except ClientError:
            return False

    def close(self) -> None:
        """Gives the connections back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
