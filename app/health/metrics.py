"""Prometheus metrics of the API process."""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("pressroom_http_requests", "HTTP requests.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("pressroom_http_request_seconds", "Duration of HTTP requests.", ["method", "route"])
UPLOADED_BYTES = Counter("pressroom_uploaded_bytes", "Bytes of uploads that were stored.")
JOBS = Gauge("pressroom_jobs", "Jobs by status.", ["status"])
QUEUED = Gauge("pressroom_queue_jobs", "Claimable jobs by capability.", ["capability"])
WORKERS = Gauge("pressroom_workers", "Workers that were heard of within the last minute.", ["capability"])


def replace_gauge(gauge: Gauge, values: Mapping[str, int]) -> None:
    """Sets a gauge of one label; what is not named any more is dropped instead of keeping its last value."""
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)
