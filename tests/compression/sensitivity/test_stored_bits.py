"""What an allocation counts is what the file holds."""

from pathlib import Path

import pytest

from tests import trained
from workers.compression.context import Context
from workers.compression.families.weights import as_compressible
from workers.compression.registry import family
from workers.compression.sensitivity.measuring import candidates, quantized
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.sensitivity import SensitivityOptions

WRITERS = {ModelFormat.ONNX: trained.write_onnx, ModelFormat.PT2: trained.write_pt2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[ModelFormat, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {found: write("mlp", folder / f"model.{found.value}") for found, write in WRITERS.items()}


@pytest.mark.parametrize("model_format", WRITERS)
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_bits_counted_are_bits_stored(
    files: dict[ModelFormat, Path], model_format: ModelFormat, scheme: str, tmp_path: Path
) -> None:
    options = SensitivityOptions.model_validate({"algorithm": "rtn", "scheme": scheme})
    for bits in (2, 3, 4, 5, 6, 8):
        model = as_compressible(family(model_format).open_model(files[model_format], Context(scratch=tmp_path)))
        weights = candidates(model, options)
        layers = {layer.name: layer.bytes for layer in model.stored_layers()}
        beside = {weight.layer: layers[weight.layer] - 4 * weight.size for weight in weights}
        forms = [(weight, quantized(model, weight, bits, options, None)) for weight in weights]
        counted = {weight.layer: model.stored_bits(weight, form) / 8 for weight, form in forms}
        model.store(forms)
        stored = {layer.name: layer.bytes for layer in model.stored_layers()}
        for name, size in counted.items():
            # An ONNX graph leaves a few zero points unpacked, and notes what all layers share in one of them.
            assert abs(stored[name] - beside[name] - size) <= (64 if model_format is ModelFormat.ONNX else 0), bits
