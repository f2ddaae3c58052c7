import io
import json

import pytest
from rich.console import Console

from app.cli import output
from app.cli.output import Exit, clear_errors, human_bytes
from app.cli.progress import course
from app.cli.tables import before_after, speed_up
from app.client.errors import ConnectionFailed, Refused

METRICS = {
    "original": {"size_bytes": 669_227, "accuracy": 0.9809, "latency_ms": {"1": {"p50": 0.0964}, "8": {"p50": 0.4}}},
    "compressed": {"size_bytes": 178_720, "accuracy": 0.98, "latency_ms": {"8": {"p50": 0.3}, "1": {"p50": 0.1051}}},
    "ratios": {"size": 3.7446, "latency": 0.917, "latency_intervals": {"8": {"low": 0.5, "high": 0.6}}},
}


def printed(metrics: dict[str, object]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(before_after([("digits\nquantize.dynamic", metrics)]))
    return console.file.getvalue()


def test_the_table_shows_both_sides_without_breaking_a_figure_at_80_columns() -> None:
    text = printed(METRICS)
    for figure in ("0.9809 → 0.9800", "669 kB → 179 kB", "3.74× smaller", "0.0964 → 0.105 ms", "0.92× as fast"):
        assert figure in text


def test_without_labels_the_table_shows_fidelity() -> None:
    compressed = {"size_bytes": 1, "fidelity": {"cosine": 0.99912, "top1_agreement": 0.97}}
    assert "0.9991" in printed({"original": {"size_bytes": 4}, "compressed": compressed, "ratios": {"size": 4.0}})


def test_an_original_without_quality_leaves_a_gap() -> None:
    metrics = {"original": {"size_bytes": 4}, "compressed": {"size_bytes": 4, "accuracy": 0.93}, "ratios": {}}
    assert "– → 0.9300" in printed(metrics)


def test_the_course_of_a_training_is_one_line() -> None:
    assert course({"train/loss": (2.3068, 0.4121), "validation/accuracy": (0.2, 0.93)}) == (
        "train/loss 2.31 → 0.412, validation/accuracy 0.2 → 0.93"
    )


def test_a_latency_ratio_that_chance_explains_is_called_no_difference() -> None:
    ratios = {"latency": 1.02, "latency_intervals": {"8": {"low": 1.2, "high": 1.4}, "1": {"low": 0.9, "high": 1.1}}}
    assert speed_up(ratios) == "no difference"


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (3_163_737, "3.16 MB")]
)
def test_sizes_are_told_in_powers_of_1000(count: int, words: str) -> None:
    assert human_bytes(count) == words


def test_a_refusal_becomes_one_line_with_its_pointer_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "err", Console(stderr=True, highlight=False))
    problem = {
        "code": "invalid_spec",
        "detail": "The request is invalid.",
        "hint": "bits is 8",
        "errors": [{"pointer": "/recipe/0/bits", "detail": "must be [8]"}],
    }
    with pytest.raises(output.typer.Exit) as ended, clear_errors():
        raise Refused(422, json.loads(json.dumps(problem)))
    assert ended.value.exit_code == Exit.REFUSED
    assert capsys.readouterr().err.splitlines() == [
        "error: invalid_spec: The request is invalid. (/recipe/0/bits: must be [8])",
        "hint: bits is 8",
    ]


def test_a_service_that_is_not_there_has_an_exit_code_of_its_own() -> None:
    with pytest.raises(output.typer.Exit) as ended, clear_errors():
        raise ConnectionFailed("no answer")
    assert ended.value.exit_code == Exit.UNREACHABLE
