"""Hugging Face folders: an allow-listed class is built from allow-listed configuration and filled from safetensors."""

import tempfile
from pathlib import Path

from workers.compression.context import Context
from workers.compression.families.statistics import describe_tensor
from workers.compression.families.torch.architectures import architecture_of
from workers.compression.families.torch.compressed_tensors_layout import CONFIG_KEY
from workers.compression.families.torch.compressed_tensors_reading import split
from workers.compression.families.torch.model_folder import open_folder
from workers.compression.families.torch.transformer_loading import load_module
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.families.torch.transformers_config import build_config, checked_config
from workers.compression.specs.messages import ModelInspection


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks an archived folder and writes ``clean.zip`` below ``out``."""
    model = open_model(path, context)
    clean = out / "clean.zip"
    model.save(clean)
    return ModelInspection(
        format=model.format,
        family=model.family,
        clean=f"{out.name}/{clean.name}",
        parameters=sum(tensor.elements for _, tensor in model.parameters()),
        inputs=model.inputs,
        outputs=model.outputs,
        tensors=tuple(describe_tensor(name, array) for name, array in model.tensors()),
        details={
            "architecture": model.architecture.class_name,
            "tokenizer": model.tokenizer_file() is not None,
            "quantized_layers": len(model.quantized),
        },
        warnings=tuple(context.warnings),
    )


def open_model(path: Path, context: Context) -> TransformerModel:
    """Opens an archived folder; every check is made again.

    Raises:
        UnsupportedFormat: An architecture or a quantized layout that is not served.
        UnsafeModel: Code, pickles or configuration that names code.
        InvalidModel: Configuration and weights do not fit.
        TooLarge: Sizes beyond any real model.
    """
    folder = open_folder(path, Path(tempfile.mkdtemp(dir=context.scratch)))
    architecture = architecture_of(folder.config)
    entries, notes = checked_config(folder.config, architecture.load_class().config_class)
    tensors, quantized = split(folder.tensors(), folder.config.get(CONFIG_KEY))
    loaded = load_module(architecture, build_config(architecture, entries), tensors, quantized)
    for note in (*folder.notes, *notes, *loaded.notes):
        context.warn(note)
    return TransformerModel(loaded.module, architecture, entries, loaded.storage, folder)
