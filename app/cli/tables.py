"""Measured figures as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from app.cli.output import human_bytes

QUALITY_METRICS = ("accuracy", "f1", "auc", "r2", "spearman", "pearson", "rmse", "mae", "perplexity")
Figures = Mapping[str, Any]


def before_after(jobs: Sequence[tuple[str, Figures]]) -> Table:
    """One row per job: quality, size and latency of original and compressed.

    Args:
        jobs: A title and the job's ``metrics`` each.
    """
    table = Table(title="before → after", title_justify="left")
    table.add_column("job", overflow="fold")
    table.add_column("quality")
    for heading in ("size", "ratio", "latency, batch 1", "speed-up"):
        table.add_column(heading, justify="right")
    for title, metrics in jobs:
        table.add_row(escape(title), *_row(metrics))
    return table


def _row(metrics: Figures) -> tuple[str, ...]:
    original, compressed = metrics.get("original", {}), metrics.get("compressed", {})
    ratios = metrics.get("ratios", {})
    return (
        quality(original, compressed),
        f"{human_bytes(original.get('size_bytes', 0))} → {human_bytes(compressed.get('size_bytes', 0))}",
        _times(ratios.get("size")),
        f"{_milliseconds(original)} → {_milliseconds(compressed)}",
        speed_up(ratios),
    )


def quality(original: Figures, compressed: Figures) -> str:
    """The task's own metric on both sides where there are labels, else how close the outputs stayed."""
    for metric in QUALITY_METRICS:
        if original.get(metric) is not None and compressed.get(metric) is not None:
            return f"{metric} {original[metric]:.4f} → {compressed[metric]:.4f}"
    fidelity = compressed.get("fidelity") or {}
    agreement = fidelity.get("top1_agreement")
    if agreement is not None:
        return f"top-1 agreement {agreement:.4f}, cosine {fidelity['cosine']:.4f}"
    return f"cosine {fidelity['cosine']:.4f}" if "cosine" in fidelity else "–"


def speed_up(ratios: Figures) -> str:
    """The latency ratio at batch size 1, or at the smallest measured; says so where chance alone explains it."""
    ratio = ratios.get("latency")
    interval = next(iter((ratios.get("latency_intervals") or {}).values()), None)
    if ratio is not None and interval and interval["low"] <= 1.0 <= interval["high"]:
        return f"{_times(ratio)} (no difference)"
    return _times(ratio)


def _milliseconds(figures: Figures) -> str:
    latency = figures.get("latency_ms") or {}
    smallest = min(latency, key=int, default=None)
    return "–" if smallest is None else f"{latency[smallest]['p50']:.3f} ms"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"
