"""The tie that stock transformers knows by the configuration: the output layer computes with the embedding table."""

from typing import Any, Final

import torch

from workers.compression.families.model import Array
from workers.compression.families.tensors.stored import from_numpy
from workers.compression.families.torch.transformer_model import TransformerModel

_ENTRY: Final = "tie_word_embeddings"


def tieable(model: TransformerModel) -> tuple[str, str] | None:
    """Names of the table and of the output layer's weight, if the class ties them where its configuration says so."""
    module: Any = model.module
    if getattr(module.config, _ENTRY, True) or module.get_output_embeddings() is None:
        return None
    names = {id(tensor): name for name, tensor in module.state_dict(keep_vars=True).items()}
    table, output = (
        names[id(layer.weight)] for layer in (module.get_input_embeddings(), module.get_output_embeddings())
    )
    return (table, output) if (module._tied_weights_keys or {}).get(output) == table else None  # noqa: SLF001


def tie(model: TransformerModel, values: Array | None) -> None:
    """Lets the output layer compute with the table, here and wherever transformers loads the model.

    Args:
        values: New values of both; None for the table's own.
    """
    module: Any = model.module
    table: torch.nn.Parameter = module.get_input_embeddings().weight
    if values is not None:
        table.copy_(from_numpy(values))
    module.get_output_embeddings().weight = table
    setattr(module.config, _ENTRY, True)
    model.entries = {**model.entries, _ENTRY: True}
