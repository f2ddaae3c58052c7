"""Hugging Face directories whose configuration, index or extra files reach for more than weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import tar_of, zip_of
from tests.hostile.pickles import pickled, touch
from tests.hostile.safetensors_files import entry, file_of, floats

HUGGINGFACE = Catalogue("huggingface", "model", "model.zip")

HF = "hf_*"
INDEX = "model.safetensors.index.json"

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "transformers_version": "5.23.0",
}


def shapes() -> dict[str, list[int]]:
    """Tensor shapes of the smallest BERT that is one, by the names transformers gives them."""
    width, inner, block = CONFIG["hidden_size"], CONFIG["intermediate_size"], "encoder.layer.0"
    embeddings = {"word": CONFIG["vocab_size"], "position": CONFIG["max_position_embeddings"], "token_type": 2}
    dense = {f"{block}.attention.self.{part}": (width, width) for part in ("query", "key", "value")} | {
        f"{block}.attention.output.dense": (width, width),
        f"{block}.intermediate.dense": (inner, width),
        f"{block}.output.dense": (width, inner),
        "pooler.dense": (width, width),
    }
    found = {f"embeddings.{name}_embeddings.weight": [rows, width] for name, rows in embeddings.items()}
    for name, (rows, columns) in dense.items():
        found |= {f"{name}.weight": [rows, columns], f"{name}.bias": [rows]}
    for name in ("embeddings", f"{block}.attention.output", f"{block}.output"):
        found |= {f"{name}.LayerNorm.weight": [width], f"{name}.LayerNorm.bias": [width]}
    return found


@cache
def weights() -> bytes:
    """Safetensors with those tensors."""
    random = np.random.default_rng(0)
    header, data = {}, b""
    for name, shape in shapes().items():
        content = random.normal(0.0, 0.05, shape).astype(np.float32).tobytes()
        header[name] = entry(shape, len(data), len(data) + len(content))
        data += content
    return file_of(header, data)


def directory(config: dict[str, Any] | bytes | None = None, **files: bytes) -> bytes:
    """The directory as a ZIP; ``config`` entries are added to a sound one, ``files`` to the members."""
    text = config if isinstance(config, bytes) else json.dumps(CONFIG | (config or {})).encode()
    members = {"config.json": text, "model.safetensors": weights()} | files
    return zip_of({name: content for name, content in members.items() if content})


@HUGGINGFACE.accepted()
def smallest_bert(_: Path) -> bytes:
    return directory()


@HUGGINGFACE.accepted("model.tar.gz")
def smallest_bert_in_a_tar(_: Path) -> bytes:
    return tar_of({"bert/config.json": json.dumps(CONFIG).encode(), "bert/model.safetensors": weights()})


@HUGGINGFACE.accepted()
def with_inert_companions(_: Path) -> bytes:
    companions = {
        "README.md": b"# bert",
        "tokenizer_config.json": b"{}",
        "modules.json": b"[]",
        "vocab.txt": b"[PAD]\n",
    }
    return directory({"_name_or_path": "someone/bert", "unknown_but_harmless": 3}, **companions)


# --- code -------------------------------------------------------------------------------------------------------------


@HUGGINGFACE.refused("unsafe_model", reason=HF + "|archive_*")
def code_file(_: Path) -> bytes:
    return directory(**{"modeling_bert.py": b"import os\n"})


@HUGGINGFACE.refused("unsafe_model", reason=HF + "|archive_*")
def code_file_in_a_folder(_: Path) -> bytes:
    return directory(**{"src/modeling_bert.PY": b"import os\n"})


@HUGGINGFACE.refused("unsafe_model", "unsupported_format", reason=HF + "|archive_*|format_*")
def pickled_weights_beside_the_safe_ones(marker: Path) -> bytes:
    return directory(**{"pytorch_model.bin": pickled(touch(marker))})


@HUGGINGFACE.refused("unsafe_model", "unsupported_format", reason=HF + "|archive_*|format_*")
def only_pickled_weights(marker: Path) -> bytes:
    return directory(**{"model.safetensors": b"", "pytorch_model.bin": pickled(touch(marker))})


@HUGGINGFACE.refused("unsafe_model", "unsupported_format", reason=HF + "|archive_*|format_*")
def pickled_training_arguments(marker: Path) -> bytes:
    return directory(**{"training_args.bin": pickled(touch(marker)), "rng_state.pth": pickled(touch(marker))})


AUTO_MAP = {"auto_map": {"AutoModel": "someone/evil--modeling.Evil"}}
DANGEROUS_KEYS: dict[str, dict[str, Any]] = {
    "auto_map": AUTO_MAP,
    "auto_map_nested": {"text_config": AUTO_MAP},
    "trust_remote_code": {"trust_remote_code": True},
    "attention_kernel_from_the_hub": {"_attn_implementation_internal": "someone/evil-kernels"},
    "attention_implementation_from_the_hub": {"attn_implementation": "someone/evil-kernels:run"},
    "experts_kernel_from_the_hub": {"_experts_implementation_internal": "someone/evil"},
    "custom_pipelines": {"custom_pipelines": {"x": {"impl": "evil.Pipeline", "pt": ["AutoModel"]}}},
}
for label, keys in DANGEROUS_KEYS.items():
    HUGGINGFACE.add(f"config_{label}", lambda _, keys=keys: directory(keys), ("unsafe_model",), (HF,))


@HUGGINGFACE.refused("unsafe_model", reason=HF)
def auto_map_in_the_tokenizer_configuration(_: Path) -> bytes:
    config = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "trust_remote_code": True}
    return directory(**{"tokenizer_config.json": json.dumps(config).encode()})


# --- weights ----------------------------------------------------------------------------------------------------------


def _indexed(shard: Any) -> bytes:
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": shard}}
    return directory(**{INDEX: json.dumps(index).encode(), "model.safetensors": b"", "model-1.safetensors": weights()})


@HUGGINGFACE.refused("unsafe_model", "invalid_model", reason=HF)
def index_that_climbs_out(_: Path) -> bytes:
    return _indexed("../../../../etc/passwd")


@HUGGINGFACE.refused("unsafe_model", "invalid_model", reason=HF)
def index_that_names_a_pickle(_: Path) -> bytes:
    return _indexed("pytorch_model.bin")


@HUGGINGFACE.refused("invalid_model", "unsafe_model", reason=HF)
def index_that_names_a_missing_shard(_: Path) -> bytes:
    return _indexed("model-2.safetensors")


@HUGGINGFACE.refused("invalid_model", "unsafe_model", reason=HF)
def index_that_holds_no_names(_: Path) -> bytes:
    return _indexed({"a": 1})


@HUGGINGFACE.refused("invalid_model", "unsupported_format", reason=HF + "|archive_*|format_*")
def no_weights(_: Path) -> bytes:
    return directory(**{"model.safetensors": b""})


@HUGGINGFACE.refused("invalid_model", reason=HF + "|safetensors_*")
def weights_of_another_shape(_: Path) -> bytes:
    return directory({"hidden_size": 32})


@HUGGINGFACE.refused("invalid_model", reason=HF + "|safetensors_*")
def weights_of_another_model(_: Path) -> bytes:
    return directory(**{"model.safetensors": file_of({"x": entry([4], 0, 16)}, floats(4))})


@HUGGINGFACE.refused("invalid_model", reason="safetensors_*|hf_*")
def weights_with_a_lying_header(_: Path) -> bytes:
    header = {"a": entry([4, 4], 0, 64), "b": entry([4], 48, 64)}
    return directory(**{"model.safetensors": file_of(header, floats(16))})


# --- configuration ----------------------------------------------------------------------------------------------------


@HUGGINGFACE.refused("too_large", "invalid_model", reason=HF + "|tensor_too_large")
def a_million_layers(_: Path) -> bytes:
    return directory({"num_hidden_layers": 1_000_000})


@HUGGINGFACE.refused("too_large", "invalid_model", reason=HF + "|tensor_too_large")
def hidden_size_of_a_terabyte(_: Path) -> bytes:
    return directory({"hidden_size": 1 << 20, "vocab_size": 1 << 40})


@HUGGINGFACE.refused("invalid_model", reason=HF)
def negative_and_fractional_sizes(_: Path) -> bytes:
    return directory({"hidden_size": -16, "num_attention_heads": 0.5})


@HUGGINGFACE.refused("invalid_model", reason=HF)
def heads_that_divide_by_zero(_: Path) -> bytes:
    return directory({"num_attention_heads": 0})


@HUGGINGFACE.refused("invalid_model", "unsupported_format", reason=HF + "|json_*")
def config_nested_100_000_deep(_: Path) -> bytes:
    return directory(b'{"model_type":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@HUGGINGFACE.refused("invalid_model", "unsupported_format", reason=HF + "|json_*")
def config_that_is_not_json(_: Path) -> bytes:
    return directory(b"model_type: bert\n")


@HUGGINGFACE.refused("invalid_model", "unsupported_format", reason=HF + "|json_*")
def config_that_is_a_list(_: Path) -> bytes:
    return directory(b'["bert"]')


@HUGGINGFACE.refused("invalid_model", "unsafe_model", reason=HF + "|json_*")
def config_with_a_key_twice(_: Path) -> bytes:
    text = json.dumps(CONFIG)
    return directory((text[:-1] + ', "model_type": "gpt2"}').encode())


@HUGGINGFACE.refused("invalid_model", reason=HF + "|json_*")
def config_with_infinity(_: Path) -> bytes:
    return directory(json.dumps(CONFIG | {"layer_norm_eps": float("inf")}).encode())


@HUGGINGFACE.refused("invalid_model", "unsupported_format", "unsafe_model", reason=HF)
def architecture_that_is_a_path(_: Path) -> bytes:
    return directory({"model_type": "../../evil", "architectures": ["os.system"]})


@HUGGINGFACE.refused("invalid_model", "unsafe_model", "unsupported_format", READY)
def activation_that_is_a_path(_: Path) -> bytes:
    return directory({"hidden_act": "os.system"})


@HUGGINGFACE.refused("invalid_model", "unsupported_format", "unsafe_model", READY)
def tokenizer_that_is_not_one(_: Path) -> bytes:
    return directory(**{"tokenizer.json": b'{"version": "1.0", "model": {"type": "Evil"}}'})
