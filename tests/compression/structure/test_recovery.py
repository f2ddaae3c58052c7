"""A structurally pruned model learns like any other."""

from collections.abc import Callable
from pathlib import Path

from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.techniques.finetune.recover import finetune_recover
from workers.compression.techniques.prune.structured.onnx import prune_graph


def test_recovery_follows_the_original_and_keeps_the_model_small(
    open_onnx: Callable[[str], OnnxModel], digits: Callable[..., Dataset], tmp_path: Path
) -> None:
    rows = digits("cnn", train=True)
    context = Context(scratch=tmp_path, train=rows, compressed=True, open_original=lambda: open_onnx("cnn"))
    spec = StructuredPrune(macs=0.75, importance="magnitude", compensate=False)
    pruned = prune_graph(open_onnx("cnn"), spec, context)
    before, size = accuracy(pruned, digits("cnn")), pruned.size_bytes()

    recovered = finetune_recover(pruned, RecoverFinetune(epochs=2, learning_rate=2e-3, validation=0.0), context)

    assert accuracy(recovered, digits("cnn")) > max(before + 0.02, 0.95)
    assert recovered.size_bytes() <= size + 64
