"""Who opens a format, and who carries out a step.

Both are found by name, so that a job imports only what it uses: a format is opened by the module that
``FAMILY_MODULES`` names; step ``quantize.static`` is carried out by ``techniques/quantize/static.py`` or, where the
formats need different code, by ``techniques/quantize/static/onnx.py`` and its siblings (``RUNTIMES``).
"""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import ModelInspection
from workers.compression.specs.step import Step

FAMILY_MODULES = {
    ModelFormat.ONNX: "workers.compression.families.onnx.family",
    ModelFormat.PT2: "workers.compression.families.torch.pt2",
    ModelFormat.HUGGINGFACE: "workers.compression.families.torch.huggingface",
    ModelFormat.SAFETENSORS: "workers.compression.families.tensors.safetensors_file",
    ModelFormat.TORCH_STATE_DICT: "workers.compression.families.tensors.state_dict",
    ModelFormat.SKOPS: "workers.compression.families.trees.skops_file",
}

RUNTIMES = {
    ModelFormat.ONNX: "onnx",
    ModelFormat.PT2: "torch",
    ModelFormat.HUGGINGFACE: "torch",
    ModelFormat.SAFETENSORS: "tensors",
    ModelFormat.TORCH_STATE_DICT: "tensors",
    ModelFormat.SKOPS: "trees",
}

Handler = Callable[[Model, Any, Context], Model]


class FamilyModule(Protocol):
    """What each module in ``FAMILY_MODULES`` provides."""

    def inspect(self, path: Path, out: Path, context: Context) -> ModelInspection:
        """Checks the upload at ``path``, writes the clean form below ``out`` where it differs, describes it."""

    def open_model(self, path: Path, context: Context) -> Model:
        """Opens a clean form; checks again, for the bytes may have been anyone's."""


_handlers: dict[tuple[type[Step], ModelFormat], Handler] = {}


def implements(spec: type[Step], *, formats: tuple[ModelFormat, ...] | None = None) -> Callable[[Handler], Handler]:
    """Registers ``(model, spec, context) -> model`` as the one that carries out ``spec`` for ``formats``."""

    def register(handler: Handler) -> Handler:
        for model_format in formats or spec.formats:
            if (spec, model_format) in _handlers:
                raise RuntimeError(f"{spec.key()} has two handlers for {model_format}")
            _handlers[(spec, model_format)] = handler
        return handler

    return register


def handler_for(spec: type[Step], model_format: ModelFormat) -> Handler:
    """The registered handler; raises ``UnsupportedTechnique`` where there is none."""
    technique, method = spec.key().split(".")
    module = importlib.import_module(f"workers.compression.techniques.{technique}.{method}")
    by_runtime = f"{module.__name__}.{RUNTIMES[model_format]}"
    if hasattr(module, "__path__") and importlib.util.find_spec(by_runtime) is not None:
        importlib.import_module(by_runtime)
    handler = _handlers.get((spec, model_format))
    if handler is None:
        served = ", ".join(found.value for found in spec.formats)
        raise UnsupportedTechnique(f"{spec.key()} does not serve {model_format.value} models; it serves {served}.")
    return handler


def family(model_format: ModelFormat) -> FamilyModule:
    """The family module of a format, imported on first use."""
    return cast("FamilyModule", importlib.import_module(FAMILY_MODULES[model_format]))
