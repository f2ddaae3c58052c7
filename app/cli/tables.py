"""Measured figures as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from app.cli.output import human_bytes

QUALITY_METRICS = ("accuracy", "f1", "auc", "r2", "spearman", "pearson", "rmse", "mae", "perplexity")
Figures = Mapping[str, Any]


def before_after(jobs: Sequence[tuple[str, Figures]]) -> Table:
    """One row per job: quality, size and latency of original and compressed; fits 80 columns.

    Args:
        jobs: A title and the job's ``metrics`` each.
    """
    table = Table(title="before → after", title_justify="left", show_lines=True)
    for heading in ("job", "quality", "size", "latency, batch 1"):
        table.add_column(heading, overflow="fold")
    for title, metrics in jobs:
        table.add_row(escape(title), *_row(metrics))
    return table


def _row(metrics: Figures) -> tuple[str, ...]:
    original, compressed = metrics.get("original", {}), metrics.get("compressed", {})
    ratios = metrics.get("ratios", {})
    before, after = (human_bytes(side.get("size_bytes", 0)) for side in (original, compressed))
    return (
        quality(original, compressed),
        f"{before} → {after}\n{ratios.get('size', 1.0):.2f}× smaller",
        f"{_milliseconds(original)} → {_milliseconds(compressed)} ms\n{speed_up(ratios)}",
    )


def quality(original: Figures, compressed: Figures) -> str:
    """The task's own metric on both sides where there are labels, else how close the outputs stayed.

    An artifact with a new last layer has quality where its original had none.
    """
    for metric in QUALITY_METRICS:
        before, after = original.get(metric), compressed.get(metric)
        if after is not None:
            return f"{metric}\n{'–' if before is None else f'{before:.4f}'} → {after:.4f}"
    fidelity = compressed.get("fidelity") or {}
    agreement = fidelity.get("top1_agreement")
    if agreement is not None:
        return f"top-1 agreement {agreement:.4f}\ncosine {fidelity['cosine']:.4f}"
    return f"cosine {fidelity['cosine']:.4f}" if "cosine" in fidelity else "–"


def speed_up(ratios: Figures) -> str:
    """The latency ratio at the smallest measured batch size; says so where chance alone explains it."""
    ratio = ratios.get("latency")
    if ratio is None:
        return "not measured"
    intervals = ratios.get("latency_intervals") or {}
    interval = intervals.get(min(intervals, key=int, default=None))
    if interval and interval["low"] <= 1.0 <= interval["high"]:
        return "no difference"
    return f"{ratio:.2f}× as fast"


def _milliseconds(figures: Figures) -> str:
    latency = figures.get("latency_ms") or {}
    smallest = min(latency, key=int, default=None)
    return "–" if smallest is None else f"{latency[smallest]['p50']:.3g}"
