"""An opened Hugging Face model: runs, is counted, and goes back into a folder that stock transformers opens."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Feeds, StoredLayer
from workers.compression.families.observed_inputs import gathered, rows_of
from workers.compression.families.tensors.stored import StoredTensor, arrays, write_safetensors
from workers.compression.families.torch import running
from workers.compression.families.torch.architectures import Architecture, classifier_of
from workers.compression.families.torch.compressed_tensors_layout import CONFIG_KEY, LayoutWeight, entries
from workers.compression.families.torch.layer_inputs import module_entries, watched_modules
from workers.compression.families.torch.layers import stored_layers
from workers.compression.families.torch.model_folder import CONFIG_NAME, WEIGHTS_NAME, ModelFolder
from workers.compression.families.torch.storage import Storage
from workers.compression.families.torch.training import quantized_before_training
from workers.compression.families.torch.transformer_head import classifier_entries, with_classifier
from workers.compression.families.torch.transformer_storage import (
    has_place,
    layout_in,
    owner_of,
    quantized_in,
    role_of,
    scaled,
    stored_as,
    why_no_form,
)
from workers.compression.families.torch.transformer_training import takes, trainable_transformer
from workers.compression.families.torch.transformers_config import build_config
from workers.compression.families.torch.weights import FloatWeight, TorchModel
from workers.compression.families.trainable import Trainable
from workers.compression.families.weights import FloatForm, LayerInputs, Weight, WeightForm
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port

_TOKENIZER = "tokenizer.json"


class TransformerModel(TorchModel):
    """A module of transformers with the configuration entries it was built from.

    Args:
        module: In evaluation mode; quantized weights are expanded in it.
        architecture: What the module is.
        entries: The kept entries of ``config.json``.
        storage: How parameters are stored that are not stored as they are computed with; techniques fill it.
        folder: Where companions lie.
    """

    format = ModelFormat.HUGGINGFACE
    family = Family.NEURAL_NETWORK
    extension = ".zip"

    def __init__(
        self,
        module: torch.nn.Module,
        architecture: Architecture,
        entries: dict[str, Any],
        storage: dict[str, Storage],
        folder: ModelFolder,
    ) -> None:
        self.module = module
        self.architecture = architecture
        self.entries = entries
        self.storage = storage
        self._folder = folder

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Token ids and mask, and segment ids where the model tells segments apart."""
        names = ["input_ids", "attention_mask"]
        if getattr(self.module.config, "type_vocab_size", 0) > 0 and takes(self.module, "token_type_ids"):
            names.append("token_type_ids")
        return tuple(Port(name=name, shape=("batch", "sequence"), dtype="int64") for name in names)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Hidden states or logits."""
        config: Any = self.module.config
        if self.architecture.output == "last_hidden_state":
            shape: tuple[int | str, ...] = ("batch", "sequence", int(config.hidden_size))
        elif self.architecture.class_name.endswith("ForSequenceClassification"):
            shape = ("batch", int(config.num_labels))
        else:
            shape = ("batch", "sequence", -1)
        return (Port(name=self.architecture.output, shape=shape, dtype="float32"),)

    def run(self, feeds: Feeds) -> list[Array]:
        """One batch through the module."""
        return running.outputs_of(lambda: self._call(feeds))

    def macs(self, feeds: Feeds) -> int:
        """Multiply-accumulates of one batch."""
        return running.count_macs(lambda: self._call(feeds))

    def _call(self, feeds: Feeds) -> list[torch.Tensor]:
        arguments: dict[str, Any] = running.tensors_of(feeds, self.inputs)
        if takes(self.module, "use_cache"):
            arguments["use_cache"] = False
        return [getattr(self.module(**arguments), self.architecture.output)]

    def parameters(self) -> Iterator[tuple[str, StoredTensor]]:
        """State entries as computed with by name, tied ones once, in the module's order."""
        seen: set[int] = set()
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, StoredTensor.of(tensor)

    def float_weights(self) -> Iterator[FloatWeight]:
        """Parameters stored as floats; compressed-tensors stores linear layers and tables as integers, if not tied."""
        tied = self._tied_names()
        quantized = self.quantized
        for name, tensor in self.parameters():
            if tensor.dtype.is_floating_point and name not in quantized:
                fits = name not in tied and has_place(self.module, name)
                yield FloatWeight(name, tensor.load(), fits_integers=fits, role=role_of(self.module, name))

    def values_of(self, name: str) -> torch.Tensor:
        """The values of a parameter or buffer."""
        owner, leaf = owner_of(self.module, name)
        found: torch.Tensor = getattr(owner, leaf)
        return found.detach()

    def why_not(self, weight: Weight, form: WeightForm) -> str | None:
        """What compressed-tensors has no place for."""
        if isinstance(form, FloatForm) and not form.dtype.startswith("float8"):
            return None
        reason = why_no_form(form)
        if reason is None and not has_place(self.module, weight.name):
            reason = "compressed-tensors restores linear layers and tables only"
        return "it is tied to another weight" if reason is None and weight.name in self._tied_names() else reason

    def zero_point_bits(self, bits: int) -> int:
        """Zero points of groups are packed as the integers are."""
        return bits

    def replace_values(self, name: str, values: torch.Tensor) -> None:
        """Writes other values into a parameter, which tied names see too."""
        self.values_of(name).copy_(values)

    def store_as(self, name: str, form: Storage) -> None:
        """Notes the form for saving; the module computes with the restored values, as transformers will."""
        tensor = self.values_of(name)
        if isinstance(form, torch.dtype) and form.itemsize > 1:
            tensor.copy_(tensor.to(form))
            self.entries = {key: value for key, value in self.entries.items() if key != "torch_dtype"}
            # Named, or else transformers would compute in the type that it finds in the file.
            self.entries["dtype"] = str(tensor.dtype).removeprefix("torch.")
        else:
            form = scaled(form, tensor)
            tensor.copy_(form.expanded())
        self.storage[name] = form

    def layer_inputs(
        self, weights: Iterable[Weight], dataset: Dataset, threads: int = 1
    ) -> Iterator[tuple[Weight, LayerInputs]]:
        """Statistics of what enters linear layers and convolutions; padding is left out."""
        weights = tuple(weights)
        observe = watched_modules(self.module, self.run, lambda: rows_of(self, dataset, threads))
        return gathered(weights, module_entries(self.module, weights), observe)

    def trainable(self) -> Trainable:
        """A trainable copy of the network."""
        self._refuse_integers()
        inputs = [port.name for port in self.inputs]
        return trainable_transformer(self.module, inputs, self.architecture.output)

    def adopt(self, trained: Trainable) -> None:
        """Takes over what was trained, rounded to the type that each tensor is stored in."""
        learned = {**dict(trained.module.named_parameters()), **dict(trained.module.named_buffers())}
        state = self.module.state_dict()
        for name, stored in trained.names.items():
            form = self.storage.get(stored)
            values = learned[name].detach()
            state[stored].copy_(values.to(form) if isinstance(form, torch.dtype) else values)

    def with_head(self, classes: tuple[str, ...], seed: int) -> "TransformerModel":
        """The same body under a fresh classifier, or a fresh regressor where there is but one class."""
        self._refuse_integers()
        architecture = classifier_of(self.architecture.model_type)
        entries = classifier_entries(architecture, self.entries, classes, self._folder.root)
        module, carried = with_classifier(self.module, architecture, build_config(architecture, entries), seed)
        storage = {new: self.storage[old] for new, old in carried.items() if old in self.storage}
        return TransformerModel(module, architecture, entries, storage, self._folder)

    def _refuse_integers(self) -> None:
        quantized = next(iter(self.quantized), None)
        if quantized is not None:
            raise quantized_before_training(quantized)

    def _tied_names(self) -> set[str]:
        names: dict[int, list[str]] = {}
        for name, tensor in self.module.state_dict(keep_vars=True).items():
            names.setdefault(id(tensor), []).append(name)
        return {name for group in names.values() if len(group) > 1 for name in group}

    def stored(self) -> dict[str, StoredTensor]:
        """The tensors as they are written."""
        layout, quantized = layout_in(self.module, self.storage), self.quantized
        found: dict[str, StoredTensor] = {}
        for name, tensor in self.parameters():
            form = self.storage.get(name)
            if name in quantized:
                found |= entries(name, quantized[name], layout.schemes[name])
            else:
                found[name] = tensor.converted(form) if isinstance(form, torch.dtype) else tensor
        return found

    @property
    def quantized(self) -> dict[str, LayoutWeight]:
        """Weights stored as integers or scaled floats, by parameter name."""
        return quantized_in(self.storage)

    def save(self, path: Path) -> None:
        """Writes the folder as a ZIP of uncompressed members."""
        with tempfile.TemporaryDirectory(dir=path.parent) as made:
            folder = Path(made)
            self._folder.copy_companions(folder)
            (folder / CONFIG_NAME).write_bytes(self._config_bytes())
            write_safetensors(folder / WEIGHTS_NAME, self.stored(), {})
            stored_zip(folder, path)

    def _config_bytes(self) -> bytes:
        config: Mapping[str, Any] = {
            "architectures": [self.architecture.class_name],
            "model_type": self.architecture.model_type,
            **self.entries,
        }
        if self.quantized:
            config = {**config, CONFIG_KEY: layout_in(self.module, self.storage).config()}
        return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()

    def stored_layers(self) -> Iterator[StoredLayer]:
        """One entry per module that has parameters."""
        modules = dict(self.module.named_modules())
        stored = stored_as(self.module, self.storage)
        return stored_layers(self.parameters(), stored, lambda name: type(modules[name]).__name__)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Values as stored, one tensor at a time."""
        return arrays(self.stored())

    def size_bytes(self) -> int:
        """Bytes of configuration and weights; the weights' header is not counted."""
        return len(self._config_bytes()) + sum(tensor.nbytes for tensor in self.stored().values())

    def load_snippet(self, name: str) -> str:
        """Opens the unpacked folder with stock transformers."""
        needs = "# needs: pip install compressed-tensors\n" if self.quantized else ""
        return (
            f"{needs}import zipfile\n\nfrom transformers import {self.architecture.class_name}\n\n"
            f'zipfile.ZipFile("{name}").extractall("model")\n'
            f'model = {self.architecture.class_name}.from_pretrained("model").eval()'
        )

    def tokenizer_file(self) -> Path | None:
        """``tokenizer.json`` of the folder."""
        path = self._folder.root / _TOKENIZER
        return path if path.is_file() else None

    def threads(self, count: int) -> None:
        """Threads of all torch operators in this process."""
        torch.set_num_threads(count)
