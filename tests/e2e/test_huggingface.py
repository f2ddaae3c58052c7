"""A Hugging Face directory on labelled text, tokenised by its own tokenizer."""

import zipfile
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.e2e.tiny_bert import TEXT_ROWS, accuracy, trained_bert, write_directory, write_lines
from tests.live import LiveService

pytestmark = pytest.mark.e2e


def test_directory_is_judged_on_text_and_comes_back_as_a_directory(service: LiveService, tmp_path: Path) -> None:
    model = service.ready("model", write_directory(tmp_path))
    data = service.ready("dataset", write_lines(tmp_path), preprocessing='{"max_length": 32, "pooling": "none"}')

    job = service.succeeded(
        model["id"],
        [{"technique": "quantize"}],
        data={"evaluation": data["id"]},
        evaluation={"repeats": 10, "batch_sizes": [1]},
    )

    assert (model["format"], model["family"]) == ("huggingface", "neural_network")
    assert (data["task"], data["rows"]) == ("classification", TEXT_ROWS)
    assert job["metrics"]["original"]["accuracy"] == pytest.approx(accuracy(trained_bert()), abs=0.011)
    assert job["metrics"]["compressed"]["accuracy"] > job["metrics"]["original"]["accuracy"] - 0.02
    assert job["metrics"]["ratios"]["size"] > 2.5
    artifact = service.artifact(job, tmp_path)
    with zipfile.ZipFile(artifact) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "small")
    assert {"config.json", "tokenizer.json"} <= {Path(name).name for name in names}
    weights = next((tmp_path / "small").rglob("*.safetensors"))
    with safe_open(weights, framework="pt") as tensors:
        assert "I8" in {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - no mapping
