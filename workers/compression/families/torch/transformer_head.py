"""A fresh classifier on the body of a transformers module."""

import json
from pathlib import Path
from typing import Any, Final

import torch
from transformers.initialization import no_init_weights

from workers.compression.families.torch.architectures import Architecture
from workers.compression.families.torch.transformers_config import build_config, build_module
from workers.compression.specs.errors import UnsupportedTechnique

_LABEL_KEYS: Final = frozenset({"num_labels", "_num_labels", "id2label", "label2id", "problem_type"})
_OUTPUT_LAYERS: Final = ("classifier.out_proj", "classifier", "score")


def classifier_entries(
    architecture: Architecture, entries: dict[str, Any], classes: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """Entries of ``config.json`` for a classifier of these classes; one class is a number to be predicted.

    Args:
        architecture: Of the classifier.
        entries: Of the model so far.
        folder: Where the tokenizer's files lie.

    Raises:
        UnsupportedTechnique: The classifier needs to know padding, and no file says what it looks like.
    """
    made = {
        **{key: value for key, value in entries.items() if key not in _LABEL_KEYS},
        "id2label": {str(index): name for index, name in enumerate(classes)},
        "label2id": {name: index for index, name in enumerate(classes)},
        "problem_type": "regression" if len(classes) == 1 else "single_label_classification",
    }
    config = build_config(architecture, made)
    if config.pad_token_id is None:
        # Decoders are read at the last token that is no padding, so without it they take one row at a time.
        made["pad_token_id"] = _padding(folder, config)
    return made


def _padding(folder: Path, config: Any) -> int:
    tokenizer = _read(folder / "tokenizer.json")
    padding = tokenizer.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        return int(padding["pad_id"])
    named = _read(folder / "tokenizer_config.json").get("pad_token")
    content = named.get("content") if isinstance(named, dict) else named
    for token in tokenizer.get("added_tokens") or ():
        if isinstance(token, dict) and token.get("content") in (content, "[PAD]") and isinstance(token.get("id"), int):
            return int(token["id"])
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) and config.eos_token_id else None
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else end
    if end is None:
        raise UnsupportedTechnique(
            "The model states neither a padding token nor an end token, which a classifier needs to find a row's end.",
            hint="Add pad_token_id to config.json.",
        )
    return int(end)


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes()) if path.is_file() else {}
    return document if isinstance(document, dict) else {}


def with_classifier(
    network: torch.nn.Module, architecture: Architecture, config: Any, seed: int
) -> tuple[torch.nn.Module, dict[str, str]]:
    """A classifier whose body, and whose head but for the last layer, hold copies of what ``network`` has of them.

    All else is initialized as transformers does it, from ``seed``; torch's own random state stays as it is.

    Returns:
        The module in evaluation mode, and the names in ``network`` of what it holds by the new names.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with no_init_weights():
            module = build_module(architecture, config)
        carried = _carried(network, module)
        state = network.state_dict()
        values = {new: state[old].clone() for new, old in carried.items()}
        module.load_state_dict(values, strict=False, assign=True)
        tensors = module.state_dict(keep_vars=True)
        for name in carried:
            tensors[name]._is_hf_initialized = True  # noqa: SLF001 - how transformers tells what not to initialize
        module.initialize_weights()
    module.tie_weights()
    dtype = next((tensor.dtype for tensor in values.values() if tensor.is_floating_point()), torch.float32)
    for name, parameter in module.named_parameters():
        if name not in carried:
            parameter.data = parameter.data.to(dtype)
    module.eval().requires_grad_(requires_grad=False)
    return module, carried


def _carried(network: torch.nn.Module, module: torch.nn.Module) -> dict[str, str]:
    """Names in ``network`` of the tensors that ``module`` takes over, by its own names."""
    prefix = f"{module.base_model_prefix}."
    old, new = network.state_dict(), module.state_dict()
    strip = not hasattr(network, str(network.base_model_prefix))
    output = next(name for name in _OUTPUT_LAYERS if any(f"{name}.weight" == key for key in new))
    found = {}
    for name, tensor in new.items():
        if strip and not name.startswith(prefix):
            continue
        source = name.removeprefix(prefix) if strip else name
        if source in old and old[source].shape == tensor.shape and not name.startswith(f"{output}."):
            found[name] = source
    return found
