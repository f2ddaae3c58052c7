"""A report shows what was measured, and no name in it can break out of its place."""

import pytest

from workers.compression import report
from workers.compression.specs.formats import ModelFormat, Task
from workers.compression.specs.messages import Comparison, Compressed
from workers.compression.specs.metrics import (
    EvaluationSummary,
    Fidelity,
    Interval,
    JobMetrics,
    Layer,
    Metrics,
    Percentiles,
    Ratios,
    StepOutcome,
)
from workers.compression.specs.report import Report, StoredModel
from workers.compression.specs.steps.quantize import DynamicQuantize

HOSTILE = "<script>alert(1)</script> | `x` [a](javascript:b)"


def side(size: int, accuracy: float, p50: float) -> Metrics:
    return Metrics(
        size_bytes=size,
        parameters=1000,
        nonzero_parameters=900,
        bits_per_parameter=8 * size / 1000,
        latency_ms={"1": Percentiles(p50=p50, p95=p50)},
        accuracy=accuracy,
        intervals={"accuracy": Interval(n=100, low=accuracy - 0.02, high=accuracy + 0.02)},
        fidelity=Fidelity(cosine=0.999, sqnr_db=31.0, max_abs_error=0.1),
    )


@pytest.fixture
def made() -> Report:
    digest = "0" * 64
    layer = Layer(
        name=HOSTILE, op="MatMul", parameters=1000, bytes_before=4000, bytes_after=1000, bits=8, sparsity=0, sqnr_db=40
    )
    return report.build(
        original=StoredModel(name=HOSTILE, format=ModelFormat.ONNX, sha256=digest, size_bytes=4000),
        artifact=StoredModel(name="model.onnx", format=ModelFormat.ONNX, sha256=digest, size_bytes=1000),
        compressed=Compressed(
            path="out/model.onnx",
            name="model.onnx",
            format=ModelFormat.ONNX,
            steps=(StepOutcome(step="recipe/0", technique="quantize", method="dynamic", seconds=0.1, changed=HOSTILE),),
            layers=(layer,),
            load="import onnxruntime",
        ),
        comparison=Comparison(
            metrics=JobMetrics(
                original=side(4000, 0.98, 1.0),
                compressed=side(1000, 0.97, 1.01),
                ratios=Ratios(
                    size=4.0,
                    latency=0.99,
                    latency_by_batch_size={"1": 0.99},
                    latency_intervals={"1": Interval(n=50, low=0.97, high=1.02)},
                ),
            ),
            evaluation=EvaluationSummary(
                task=Task.CLASSIFICATION, metric="accuracy", rows=100, synthetic=False, split="All rows."
            ),
            warnings=(HOSTILE,),
        ),
        recipe=(DynamicQuantize(),),
        seed=0,
    )


def test_the_report_survives_json(made: Report) -> None:
    assert Report.model_validate_json(made.model_dump_json()) == made


def test_an_interval_that_holds_one_reads_as_no_difference(made: Report) -> None:
    rows = {name: change for name, _, _, change in report.headline_rows(made)}
    assert rows["size"] == "4.00× smaller"
    assert rows["latency, ms (batch 1)"].startswith("no difference")
    assert rows["accuracy"] == "-0.0100"


def test_names_cannot_break_out_of_html_or_markdown(made: Report) -> None:
    page, text = report.to_html(made), report.to_markdown(made)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in text
    assert "[a](javascript:" not in text
