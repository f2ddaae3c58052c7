"""Files of tensors in which some weights are stored in few bits: read as those weights, written as their parts."""

from collections.abc import Mapping

from workers.compression.families.tensors.layout import KEY, Layouts, parse_layouts
from workers.compression.families.tensors.quantized import BOOK, SUFFIXES, QuantizedTensor
from workers.compression.families.tensors.stored import StoredTensor, TensorFile
from workers.compression.specs.errors import InvalidModel


def joined(content: TensorFile) -> TensorFile:
    """The file with one tensor in place of the parts of each weight that its layouts name.

    Raises:
        InvalidModel: Parts are missing or do not fit.
    """
    if KEY not in content.metadata:
        return content
    layouts = parse_layouts(content.metadata[KEY])
    left, aliases = dict(content.tensors), dict(content.shared)
    weights: dict[str, StoredTensor] = {}
    for name, layout in layouts.weights.items():
        parts = {suffix: left.pop(name + suffix) for suffix in SUFFIXES if name + suffix in left}
        if BOOK not in parts and name + BOOK in aliases:
            parts[BOOK] = content.tensors[aliases.pop(name + BOOK)]
        weights[name] = QuantizedTensor.reading(name, layout, parts)
    tensors = left | weights
    strangers = [alias for alias, name in layouts.shared.items() if name not in weights or alias in tensors]
    if strangers or len(tensors) != len(left) + len(weights):
        raise InvalidModel("The layouts name a tensor twice or not at all.", reason="tensor_layout")
    metadata = {key: text for key, text in content.metadata.items() if key != KEY}
    return TensorFile(tensors, {**aliases, **layouts.shared}, metadata, content.scratch)


def parted(content: TensorFile) -> tuple[dict[str, StoredTensor], dict[str, str], dict[str, str]]:
    """What is stored: tensors and sharing map of plain tensors, and the entry about those in few bits if there are any.

    Raises:
        InvalidModel: A part would have the name of another tensor.
    """
    quantized = {name: found for name, found in content.tensors.items() if isinstance(found, QuantizedTensor)}
    stored: dict[str, StoredTensor] = {}
    books: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in content.tensors.items():
        parts: Mapping[str, StoredTensor] = tensor.parts if isinstance(tensor, QuantizedTensor) else {"": tensor}
        for suffix, part in parts.items():
            if name + suffix in stored or name + suffix in aliases or (suffix and name + suffix in content.tensors):
                raise InvalidModel(f"{name + suffix} is the name of two tensors.", reason="tensor_layout")
            first = books.setdefault(id(part), name + suffix) if suffix == BOOK else name + suffix
            if first == name + suffix:
                stored[first] = part
            else:
                aliases[name + suffix] = first
    shared = {alias: name for alias, name in content.shared.items() if name not in quantized} | aliases
    if not quantized:
        return stored, shared, {}
    layouts = Layouts(
        weights={name: tensor.layout for name, tensor in quantized.items()},
        shared={alias: name for alias, name in content.shared.items() if name in quantized},
    )
    return stored, shared, {KEY: layouts.model_dump_json()}
