"""HTTP body of a comparison."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class ComparedJob(BaseModel):
    """One column of the comparison."""

    id: str
    model: str
    status: str
    outcome: str | None
    recipe: list[dict[str, Any]]
    labels: dict[str, str]


class ComparedMetric(BaseModel):
    """One row: a figure of each job, in the order of ``jobs``; null where a job has no such figure."""

    name: str = Field(examples=["size_bytes", "latency_ms.1.p50", "fidelity.cosine"])
    original: list[int | float | None]
    compressed: list[int | float | None]
    better: Literal["higher", "lower"]
    best: str | None = Field(description="The job with the best compressed figure.")


class JobComparison(BaseModel):
    """The same metrics of several jobs side by side."""

    object: Literal["comparison"] = "comparison"
    jobs: list[ComparedJob]
    metrics: list[ComparedMetric]
