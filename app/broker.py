"""The broker carries hints that a job waits and wakes those who watch one; it never holds the truth.

Everything here may fail or be lost: hints are sent again by the sweeper, watchers poll beside listening.
"""

import logging
from urllib.parse import parse_qs, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError

RUN_JOB = "pressroom.run_job"
WAKE_CHANNEL = "pressroom:"

_log = logging.getLogger(__name__)

# One quick second try heals a connection that the server dropped meanwhile; whoever sends must not wait longer,
# because the outbox and the sweeper already guarantee delivery.
_SEND_POLICY = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1, "interval_max": 0.1}
_SOCKET_SECONDS = 0.5


class BrokerUnavailable(Exception):
    """The broker did not take or answer a message; nothing is lost, the sweeper sends it later."""


class Broker:
    """Celery for hints, Redis publish/subscribe for wake-ups.

    Args:
        url: Celery broker URL: ``redis://``, ``rediss://``, ``redis+socket://`` or ``amqp://``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.celery = _celery(url)
        self.redis_url = _redis_url(url)
        self._redis = _redis_client(self.redis_url) if self.redis_url else None

    def hint(self, capability: str, job_id: str) -> None:
        """Tells the workers of ``capability`` that a job waits for one of them.

        Raises:
            BrokerUnavailable: within about a second, if the broker does not take the message.
        """
        try:
            self.celery.send_task(
                RUN_JOB, args=[job_id], queue=capability, ignore_result=True, retry=True, retry_policy=_SEND_POLICY
            )
        except (OperationalError, OSError, redis.RedisError) as error:
            raise BrokerUnavailable(str(error)) from error

    def waiting(self, capability: str) -> int:
        """Messages in a queue that no worker has taken yet."""
        with self.celery.connection_for_read() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue=capability, passive=True).message_count)
            except connection.channel_errors:
                return 0  # The queue is made by its first message or worker.
            except (OperationalError, OSError, redis.RedisError) as error:
                raise BrokerUnavailable(str(error)) from error

    def wake(self, topic: str) -> None:
        """Tells everyone who watches ``topic`` to look again; silent if there is no Redis, for watchers also poll."""
        if self._redis is None:
            return
        try:
            self._redis.publish(WAKE_CHANNEL + topic, "")
        except redis.RedisError as error:
            _log.debug("wake-up of %s not sent: %s", topic, error)

    def ping(self) -> None:
        """Asks the broker for a sign of life.

        Raises:
            BrokerUnavailable: if there is none.
        """
        try:
            if self._redis is not None:
                self._redis.ping()
                return
            with self.celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=_SOCKET_SECONDS)
        except (OperationalError, OSError, redis.RedisError) as error:
            raise BrokerUnavailable(str(error)) from error

    def close(self) -> None:
        """Gives the connections back."""
        self.celery.close()
        if self._redis is not None:
            self._redis.close()


def _celery(url: str) -> Celery:
    celery = Celery("pressroom", broker=url, set_as_current=False)
    celery.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=2.0,
        broker_transport_options=_transport_options(url),
    )
    return celery


def _transport_options(url: str) -> dict[str, float]:
    # Without max_retries kombu tries for ever to reach a broker that is down, in the middle of an HTTP request.
    options: dict[str, float] = dict(_SEND_POLICY)
    if url.startswith("redis"):
        options |= {"socket_connect_timeout": _SOCKET_SECONDS, "socket_timeout": 5.0}
    return options


def _redis_url(url: str) -> str | None:
    """The URL for ``redis`` and ``redis.asyncio``, whose word for a socket differs from Celery's."""
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
        return f"unix://{parts.netloc}{parts.path}?db={database}"
    return url if parts.scheme in {"redis", "rediss"} else None


def _redis_client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1),
    )
