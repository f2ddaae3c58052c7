"""Run by neural-compressor's own environment: its 8-bit integers of a BERT, by export of a torch program.

python neural_compressor_int8.py DIRECTORY static|dynamic CALIBRATION.npz JUDGED.npz MADE.pt2 ANSWERS.npz

ANSWERS holds the mean hidden state of each row of JUDGED, in order.
"""

import sys

import numpy as np
import torch
from neural_compressor.torch.algorithms.pt2e_quant.core import W8A8PT2EQuantizer
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import get_default_dynamic_config, get_default_static_config, prepare
from transformers import BertModel

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class Encoder(torch.nn.Module):
    """Hidden states of texts."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        # A pooler whose output goes nowhere breaks the search for layers to quantize.
        bert = BertModel.from_pretrained(directory, attn_implementation="eager", add_pooling_layer=False)
        self.bert = bert.eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """Shape (texts, tokens, width)."""
        return self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state


def batches(path: str) -> list[tuple[torch.Tensor, ...]]:
    """The arrays ``<batch>/<input>``."""
    with np.load(path) as stored:
        count = len({name.partition("/")[0] for name in stored.files})
        return [tuple(torch.from_numpy(stored[f"{batch}/{name}"]) for name in NAMES) for batch in range(count)]


def drop_unread(program: torch.fx.GraphModule) -> None:
    """Deletes the float weights that integers stand for now; they would be saved too."""
    read = {node.target for node in program.graph.nodes if node.op == "get_attr"}
    for name, _ in list(program.named_parameters()):
        if name not in read:
            module, _, leaf = name.rpartition(".")
            delattr(program.get_submodule(module), leaf)


@torch.no_grad()
def main() -> None:
    """Quantizes and answers."""
    directory, kind, calibration, judged, made, answers = sys.argv[1:]
    rows = batches(calibration)
    count, length = torch.export.Dim("count", min=2, max=64), torch.export.Dim("length", min=2, max=512)
    program = export(Encoder(directory), rows[0], dynamic_shapes=({0: count, 1: length},) * 3)
    settings = get_default_static_config() if kind == "static" else get_default_dynamic_config()
    prepared = prepare(program, settings)
    for row in rows:
        prepared(*row)
    # The public ``convert`` leaves weights as floats; only its own quantizer can be told to store integers.
    W8A8PT2EQuantizer.is_dynamic = kind == "dynamic"
    configured = next(iter(prepared.qconfig.values()))
    quantized = W8A8PT2EQuantizer(quant_config=configured).convert(prepared, fold_quantize=True)
    drop_unread(quantized)
    torch.export.save(torch.export.export(quantized, rows[0], dynamic_shapes=({0: count, 1: length},) * 3), made)
    found = []
    for ids, mask, types in batches(judged):
        weights = mask[..., None].float()
        found.append(((quantized(ids, mask, types) * weights).sum(1) / weights.sum(1)).numpy())
    np.savez(answers, answers=np.concatenate(found))


if __name__ == "__main__":
    main()
