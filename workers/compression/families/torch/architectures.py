"""The transformers classes that are served, each named here: nothing in an upload chooses what is imported."""

import importlib
from dataclasses import dataclass
from typing import Any, Final

from workers.compression.specs.errors import InvalidModel, UnsupportedFormat

_ENCODER_HEADS: Final = {
    "Model": "last_hidden_state",
    "ForSequenceClassification": "logits",
    "ForTokenClassification": "logits",
    "ForMaskedLM": "logits",
}
_DECODER_HEADS: Final = {
    "Model": "last_hidden_state",
    "ForSequenceClassification": "logits",
    "ForCausalLM": "logits",
}
_GPT2_HEADS: Final = {
    "Model": "last_hidden_state",
    "ForSequenceClassification": "logits",
    "LMHeadModel": "logits",
}
_TYPES: Final = {
    "albert": ("albert", "Albert", _ENCODER_HEADS),
    "bert": ("bert", "Bert", _ENCODER_HEADS),
    "camembert": ("camembert", "Camembert", _ENCODER_HEADS),
    "distilbert": ("distilbert", "DistilBert", _ENCODER_HEADS),
    "electra": ("electra", "Electra", _ENCODER_HEADS),
    "gpt2": ("gpt2", "GPT2", _GPT2_HEADS),
    "gpt_neox": ("gpt_neox", "GPTNeoX", _DECODER_HEADS),
    "llama": ("llama", "Llama", _DECODER_HEADS),
    "mistral": ("mistral", "Mistral", _DECODER_HEADS),
    "modernbert": ("modernbert", "ModernBert", _ENCODER_HEADS),
    "mpnet": ("mpnet", "MPNet", _ENCODER_HEADS),
    "qwen2": ("qwen2", "Qwen2", _DECODER_HEADS),
    "qwen3": ("qwen3", "Qwen3", _DECODER_HEADS),
    "roberta": ("roberta", "Roberta", _ENCODER_HEADS),
    "xlm-roberta": ("xlm_roberta", "XLMRoberta", _ENCODER_HEADS),
}


@dataclass(frozen=True)
class Architecture:
    """One class of transformers and the output it is judged by.

    Args:
        model_type: As in ``config.json``.
        class_name: As in the ``architectures`` of ``config.json``.
        output: Field of the class's result.
    """

    model_type: str
    package: str
    class_name: str
    output: str

    def load_class(self) -> Any:
        """Imports the class; only the module that holds it, since importing all of transformers takes seconds."""
        module = importlib.import_module(f"transformers.models.{self.package}.modeling_{self.package}")
        return getattr(module, self.class_name)


ARCHITECTURES: Final = {
    (model_type, f"{prefix}{head}"): Architecture(model_type, package, f"{prefix}{head}", output)
    for model_type, (package, prefix, heads) in _TYPES.items()
    for head, output in heads.items()
}


def classifier_of(model_type: str) -> Architecture:
    """The class that classifies sequences, of a served type."""
    return ARCHITECTURES[model_type, f"{_TYPES[model_type][1]}ForSequenceClassification"]


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The served class that a ``config.json`` asks for; without ``architectures`` the one that has no head."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InvalidModel("config.json does not say what model_type it describes.", reason="hf_config")
    if model_type not in _TYPES:
        raise UnsupportedFormat(
            f"Hugging Face models of type {model_type[:100]!r} are not served; served are {', '.join(sorted(_TYPES))}.",
            reason="hf_architecture",
            hint="Export the model to ONNX or with torch.export.",
        )
    named = config.get("architectures") or [f"{_TYPES[model_type][1]}Model"]
    class_name = named[0] if isinstance(named, list) else named
    found = ARCHITECTURES.get((model_type, class_name)) if isinstance(class_name, str) else None
    if found is None:
        served = ", ".join(name for kind, name in ARCHITECTURES if kind == model_type)
        raise UnsupportedFormat(
            f"Of {model_type} models these classes are served: {served}; not {str(class_name)[:100]!r}.",
            reason="hf_architecture",
            hint="Export the model to ONNX or with torch.export.",
        )
    return found
