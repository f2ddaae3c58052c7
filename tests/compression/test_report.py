"""A report shows what was measured, and no name in it can break out of its place."""

import re
import xml.etree.ElementTree as ET

import pytest

from workers.compression import report
from workers.compression.specs.formats import ModelFormat, Task
from workers.compression.specs.messages import Comparison, Compressed
from workers.compression.specs.metrics import (
    Curve,
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

CURVES = (
    Curve(name="train/loss", points=((1, 2.0), (2, 0.5), (10, 1.0))),
    Curve(name="validation/accuracy", points=((5, 0.25), (10, 0.75))),
    Curve(name=HOSTILE, points=((7, 1.0),)),
    Curve(name="never measured", points=()),
)


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
            steps=(
                StepOutcome(
                    step="recipe/0", technique="quantize", method="dynamic", seconds=0.1, changed=HOSTILE, curves=CURVES
                ),
            ),
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


def charts(page: str) -> list[ET.Element]:
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_curves_are_drawn_point_by_point_with_their_range(made: Report) -> None:
    loss, accuracy, _ = charts(report.to_html(made))
    line = loss.find("polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert points == [(0.0, 0.0), (35.6, 120.0), (320.0, 80.0)]
    assert [text.text for text in loss.findall("text")] == ["2", "0.5", "1", "update", "10"]
    assert loss.findtext("title") == "train/loss over updates 1 to 10: from 2 to 1"
    assert (loss.attrib["role"], loss.attrib["aria-label"]) == ("img", loss.findtext("title"))
    rising = accuracy.find("polyline")
    assert rising is not None
    assert rising.attrib["points"] == "0.0,120.0 320.0,0.0"


def test_a_curve_of_one_point_is_drawn_and_its_name_stays_text(made: Report) -> None:
    page = report.to_html(made)
    assert page.startswith("<!doctype html>")
    assert len(charts(page)) == 3
    alone = charts(page)[2]
    assert alone.findtext("title", "").startswith(HOSTILE)
    dot = alone.find("circle")
    assert dot is not None
    assert (dot.attrib["cx"], dot.attrib["cy"]) == ("160.0", "60.0")
    assert "http" not in page


def test_markdown_tells_first_best_and_last_of_each_curve(made: Report) -> None:
    text = report.to_markdown(made)
    assert "| train/loss | 2 | 0.5 (update 2) | 1 | 1 to 10 |" in text
    assert "| validation/accuracy | 0.25 | 0.75 (update 10) | 0.75 | 5 to 10 |" in text
    assert "never measured" not in text


def test_figures_that_one_side_lacks_leave_a_gap(made: Report) -> None:
    sides = made.metrics
    original = sides.original.model_copy(update={"accuracy": None, "intervals": {}})
    compressed = sides.compressed.model_copy(update={"fidelity": None})
    metrics = sides.model_copy(update={"original": original, "compressed": compressed})
    partial = made.model_copy(update={"metrics": metrics})
    rows = {name: values for name, *values in report.headline_rows(partial)}
    assert rows["accuracy"] == ["–", "0.9700 [0.9500, 0.9900]", ""]
    assert "cosine to original" not in rows
    assert "<td>–</td>" in report.to_html(partial)
    assert "| accuracy | – | 0.9700" in report.to_markdown(partial)


def test_layers_that_the_original_did_not_have_fit_the_page(made: Report) -> None:
    layer = made.layers[0].model_copy(update={"bytes_before": 0, "bytes_after": 500})
    page = report.to_html(made.model_copy(update={"layers": (layer,)}))
    assert re.findall(r"width:([0-9.]+)%", page) == ["0.0", "100.0"]
