"""A ``config.json`` from a stranger turned into a configuration object, key by allowed key.

transformers has let keys of this file choose code to run (CVE-2026-4372, CVE-2026-5241); so the object is built from
the fields that the architecture itself declares, and keys that name code refuse the upload.
"""

from collections.abc import Iterator
from typing import Any, Final

from huggingface_hub.errors import StrictDataclassError

from workers.compression.families.torch.architectures import Architecture
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

_REASON: Final = "hf_config"
_DANGEROUS: Final = (
    "auto_map", "trust_remote_code", "attn_implementation", "experts_implementation", "custom_pipelines", "kernel",
    "custom_generate", "custom_object", "__class__", "py_module",
)  # fmt: skip
_HARMLESS: Final = frozenset(
    {"_name_or_path", "_commit_hash", "_num_labels", "_attn_implementation_autoset", "hybrid_kernel_size"}
)
_COMMON_KEYS: Final = frozenset({"dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type"})
_LEGACY_ROPE_KEYS: Final = frozenset({"rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base"})
_SILENTLY_DROPPED: Final = frozenset(
    {"architectures", "model_type", "transformers_version", "quantization_config", *_HARMLESS}
)
_ONLY_VALUES: Final = {"position_embedding_type": "absolute"}
_DTYPES: Final = frozenset({"float32", "float16", "bfloat16"})
_LIMITS: Final = {"num_hidden_layers": 512, "n_layer": 512, "n_layers": 512, "max_position_embeddings": 1 << 20}
_LARGEST_SIZE: Final = 1 << 24
_BUILD_ERRORS: Final = (
    ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, NotImplementedError,
    StrictDataclassError,
)  # fmt: skip


def refuse_dangerous_keys(document: Any, where: str) -> None:
    """Raises ``UnsafeModel`` if any key in a JSON document, however deep, names code or a kernel to fetch."""
    for key in _keys(document):
        lowered = key.lower()
        if key not in _HARMLESS and any(word in lowered for word in _DANGEROUS):
            raise UnsafeModel(f"{where} holds the key {key[:100]!r}, which can make a loader run code.", reason=_REASON)


def _keys(document: Any) -> Iterator[str]:
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from node
            waiting.extend(value for key, value in node.items() if not _is_numbering(key, value))
        elif isinstance(node, list):
            waiting.extend(node)


def _is_numbering(key: str, value: Any) -> bool:
    """Whether an entry numbers the classes, whose names may be any words: what holds but numbers names no code."""
    return key == "label2id" and isinstance(value, dict) and all(type(number) is int for number in value.values())


def checked_config(raw: dict[str, Any], config_class: Any) -> tuple[dict[str, Any], list[str]]:
    """The entries of ``config.json`` that the architecture declares, and sentences about those left out."""
    declared = set(config_class.__annotations__) | _COMMON_KEYS
    if "rope_parameters" in declared:
        declared |= _LEGACY_ROPE_KEYS
    declared |= set(config_class.attribute_map)
    kept = {key: value for key, value in raw.items() if key in declared}
    for key, value in kept.items():
        _check_value(key, value)
    for key in raw:
        if key.startswith("_") and key not in declared and key not in _HARMLESS:
            raise UnsafeModel(f"config.json holds the private key {key[:100]!r}.", reason=_REASON)
    for key, value in _ONLY_VALUES.items():
        if key not in kept and raw.get(key, value) != value:
            raise InvalidModel(
                f"config.json states {key} = {str(raw[key])[:50]!r}; only {value!r} is served.", reason=_REASON
            )
    left_out = sorted(set(raw) - set(kept) - _SILENTLY_DROPPED - set(_ONLY_VALUES))
    notes = [f"Entries of config.json without effect here: {', '.join(key[:50] for key in left_out[:20])}."]
    return kept, notes if left_out else []


def _check_value(key: str, value: Any) -> None:
    if key in ("dtype", "torch_dtype") and value not in (*_DTYPES, None):
        raise InvalidModel(f"config.json states the data type {str(value)[:50]!r}.", reason=_REASON)
    for number in _numbers(value):
        limit = _LIMITS.get(key, _LARGEST_SIZE)
        if number > limit:
            raise TooLarge(f"config.json states {key} = {number}; at most {limit} is served.", reason=_REASON)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        if len(value) > 100_000:
            raise TooLarge("A list in config.json is too long.", reason=_REASON)
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield abs(value)


def build_config(architecture: Architecture, entries: dict[str, Any]) -> Any:
    """The configuration object; raises ``InvalidModel`` where transformers finds the values inconsistent."""
    try:
        return architecture.load_class().config_class(**entries)
    except _BUILD_ERRORS as error:
        raise InvalidModel(f"config.json is inconsistent: {_first_line(error)}", reason=_REASON) from error


def build_module(architecture: Architecture, config: Any, **options: Any) -> Any:
    """The module on the current device; raises ``InvalidModel`` where the configuration does not allow one."""
    try:
        return architecture.load_class()(config, **options)
    except _BUILD_ERRORS as error:
        raise InvalidModel(f"No model can be built from config.json: {_first_line(error)}", reason=_REASON) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
