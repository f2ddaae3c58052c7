"""Builds the report of a finished compression and renders it as Markdown and HTML.

Rendering happens in the supervisor, from figures that were parsed and bounded: nothing here trusts a string. Markdown
and HTML show the same rows, made once by ``headline_rows``.
"""

from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined
from pydantic import JsonValue

from workers.compression import charts
from workers.compression.specs.messages import Analyzed, Comparison, Compressed
from workers.compression.specs.metrics import Metrics
from workers.compression.specs.recipe import Recipe
from workers.compression.specs.report import AnalysisReport, Report, StoredModel
from workers.compression.specs.sensitivity import SensitivityOptions

TASK_METRICS = ("accuracy", "f1", "auc", "rmse", "mae", "r2", "spearman", "pearson", "perplexity")
MISSING = "–"
Row = tuple[str, str, str, str]


def build(
    *,
    original: StoredModel,
    artifact: StoredModel,
    compressed: Compressed,
    comparison: Comparison,
    recipe: Recipe,
    seed: int,
    job: str | None = None,
    environment: dict[str, JsonValue] | None = None,
) -> Report:
    """Puts together what the children measured.

    Args:
        original: The model that was uploaded; its size is that of the measured clean form.
        artifact: The file as it lies in the store.
        environment: Facts the supervisor adds, such as the worker's hardware.
    """
    return Report(
        job=job,
        created_at=_now(),
        original=original,
        artifact=artifact,
        load=compressed.load,
        recipe=tuple(step.model_dump(mode="json") for step in recipe),
        seed=seed,
        steps=compressed.steps,
        metrics=comparison.metrics,
        evaluation=comparison.evaluation,
        findings=comparison.findings,
        warnings=tuple(dict.fromkeys((*compressed.warnings, *comparison.warnings))),
        layers=compressed.layers,
        harness=comparison.harness,
        environment={**comparison.environment, **(environment or {})},
    )


def build_analysis(
    *,
    model: StoredModel,
    options: SensitivityOptions,
    analyzed: Analyzed,
    rows: str,
    seed: int,
    job: str | None = None,
    environment: dict[str, JsonValue] | None = None,
) -> AnalysisReport:
    """The report of a job that measured and changed nothing.

    Args:
        rows: Which rows were used, in words.
    """
    return AnalysisReport(
        job=job,
        created_at=_now(),
        model=model,
        options=options,
        sensitivity=analyzed.sensitivity,
        reused=analyzed.reused,
        rows=rows,
        seconds=analyzed.seconds,
        layers=analyzed.layers,
        warnings=analyzed.warnings,
        seed=seed,
        environment={**analyzed.environment, **(environment or {})},
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def headline_rows(report: Report) -> list[Row]:
    """The before/after table: figure, original, compressed, and the ratio or difference in words."""
    before, after, ratios = report.metrics.original, report.metrics.compressed, report.metrics.ratios
    rows: list[Row] = [
        ("size", _bytes(before.size_bytes), _bytes(after.size_bytes), _times(ratios.size, "smaller")),
        (
            "bits per parameter",
            f"{before.bits_per_parameter:.2f}",
            f"{after.bits_per_parameter:.2f}",
            _times(ratios.bits_per_parameter, "fewer"),
        ),
        (
            "nonzero parameters",
            f"{before.nonzero_parameters:,}",
            f"{after.nonzero_parameters:,}",
            f"{1 - after.nonzero_parameters / max(after.parameters, 1):.1%} zero",
        ),
    ]
    if after.archive_bytes is not None:
        rows.insert(1, ("archive", "", _bytes(after.archive_bytes), _times(ratios.archive, "smaller")))
    rows += _quality_rows(before, after)
    rows += _latency_rows(report)
    for name, label, ratio in (("load_ms", "load, ms", ratios.load), ("macs", "MACs", ratios.macs)):
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None:
            rows.append((label, f"{old:,.0f}", f"{new:,.0f}", _times(ratio, "less")))
    if before.peak_memory_bytes is not None and after.peak_memory_bytes is not None:
        memory = _times(ratios.peak_memory, "less")
        rows.append(("peak memory", _bytes(before.peak_memory_bytes), _bytes(after.peak_memory_bytes), memory))
    return rows


def to_markdown(report: Report | AnalysisReport) -> str:
    """The report for a pull request or a terminal."""
    return _render("md.jinja", report, autoescape=False)


def to_html(report: Report | AnalysisReport) -> str:
    """A self-contained page: no script, no outside reference."""
    return _render("html.jinja", report, autoescape=True)


def _render(ending: str, report: Report | AnalysisReport, *, autoescape: bool) -> str:
    # Markdown cells go through the ``cell`` filter instead: HTML entities would show there.
    environment = Environment(
        autoescape=autoescape,  # noqa: S701
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = _bytes
    environment.filters["charts"] = charts.draw_all
    environment.filters["cell"] = _markdown_cell
    name, rows = ("report", headline_rows(report)) if isinstance(report, Report) else ("analysis", [])
    source = resources.files("workers.compression").joinpath("templates", f"{name}.{ending}").read_text("utf-8")
    return environment.from_string(source).render(report=report, rows=rows)


def _quality_rows(before: Metrics, after: Metrics) -> list[Row]:
    rows: list[Row] = []
    for name in TASK_METRICS:
        old, new = getattr(before, name), getattr(after, name)
        if old is not None or new is not None:
            change = f"{new - old:+.4f}" if old is not None and new is not None else ""
            rows.append((name, _with_interval(before, name, old), _with_interval(after, name, new), change))
    if after.fidelity is not None:
        rows.append(("cosine to original", "1", f"{after.fidelity.cosine:.5f}", f"{after.fidelity.sqnr_db:.1f} dB"))
        if after.fidelity.top1_agreement is not None:
            rows.append(("same top class", "1", f"{after.fidelity.top1_agreement:.4f}", ""))
    return rows


def _with_interval(side: Metrics, name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    interval = side.intervals.get(name)
    return f"{value:.4f}" if interval is None else f"{value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _latency_rows(report: Report) -> list[Row]:
    before, after, ratios = report.metrics.original, report.metrics.compressed, report.metrics.ratios
    rows: list[Row] = []
    for batch, old in (before.latency_ms or {}).items():
        new = (after.latency_ms or {}).get(batch)
        ratio = (ratios.latency_by_batch_size or {}).get(batch)
        if new is None or ratio is None:
            continue
        interval = (ratios.latency_intervals or {}).get(batch)
        verdict = _times(ratio, "faster")
        if interval is not None and interval.low <= 1.0 <= interval.high:
            verdict = f"no difference [{interval.low:.2f}, {interval.high:.2f}]"
        elif interval is not None:
            verdict += f" [{interval.low:.2f}, {interval.high:.2f}]"
        rows.append((f"latency, ms (batch {batch})", f"{old.p50:.3f}", f"{new.p50:.3f}", verdict))
    return rows


def _times(ratio: float | None, word: str) -> str:
    if ratio is None:
        return ""
    if 0.995 < ratio < 1.005:
        return "the same"
    if ratio >= 1.0:
        return f"{ratio:.2f}× {word}"
    opposite = {"smaller": "larger", "faster": "slower", "fewer": "more", "less": "more"}[word]
    return f"{1 / ratio:.2f}× {opposite}" if ratio > 0 else ""


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000 or unit == "GB":
            break
    return f"{size:,.2f} {unit}"


def _markdown_cell(text: object) -> str:
    """Text that cannot break out of a table cell or start markup of its own."""
    flat = " ".join(str(text).split())
    return "".join("\\" + letter if letter in "\\|<>[]`*_" else letter for letter in flat)
