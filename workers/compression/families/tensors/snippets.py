"""Paste-ready code that opens a file of tensors with stock libraries and gives plain tensors, quantized or not."""

from collections.abc import Mapping

from workers.compression.families.tensors.layout import KEY
from workers.compression.families.tensors.quantized import BOOK, QuantizedTensor
from workers.compression.families.tensors.stored import StoredTensor

_TIED = """\
from safetensors import safe_open

with safe_open("{name}", "pt") as file:
    tensors = {{name: file.get_tensor(name) for name in file.keys()}}
    tensors |= {{alias: tensors[name] for alias, name in file.metadata().items() if name in tensors}}
"""

_ALIASES = """\
    tensors |= {alias: tensors[name] for alias, name in file.metadata().items() if name in tensors}
"""

_CODES = """
def codes(rows, bits, columns):
    planes = np.unpackbits(rows.contiguous().numpy().view(np.uint8), 1, columns * bits, "little")
    return torch.from_numpy(np.packbits(planes.reshape(len(rows), columns, bits), 2, "little")[..., 0])

"""

_LOOP = """
for name, how in layouts["weights"].items():
    rows, columns, bits = how["shape"][0], math.prod(how["shape"][1:]), how["bits"]
    r, c = torch.arange(rows)[:, None] // how["block"][0], torch.arange(columns) // how["block"][1]
"""

_CODEBOOK = """\
values = tensors.pop(name + ".codebook").float()[r, c, codes(tensors.pop(name + ".codes"), bits, columns).long()]
"""

_SCALED_CODEBOOK = f"""\
{_CODEBOOK}\
scales = tensors.pop(name + ".scales").float()[tensors.pop(name + ".scale_codes").long()]
values = values * scales.repeat_interleave(columns // scales.shape[1], 1)
"""

_FLOAT = """\
values = tensors.pop(name).reshape(rows, columns).float() * tensors.pop(name + "_scale")[r, c]
"""

_OFFSET = """\
packed = tensors.pop(name + "_packed", None)
values = tensors.pop(name).reshape(rows, columns) if packed is None else codes(packed, bits, columns)
values = values * tensors.pop(name + "_scale").float()[r, c] + tensors.pop(name + "_offset")[r, c]
tensors.pop(name + "_shape", None)
"""

_PACKED = """\
scale, zero = tensors.pop(name + "_scale").float(), tensors.pop(name + "_zero_point", None)
zero = 2 ** (bits - 1) if zero is None else codes(zero.T, bits, len(scale)).T[r, c].float()
values = (codes(tensors.pop(name + "_packed"), bits, columns).float() - zero) * scale[r, c]
tensors.pop(name + "_shape")
"""

_INTEGERS = """\
zero = tensors.pop(name + "_zero_point", torch.zeros(r.max() + 1, c.max() + 1))[r, c].float()
values = (tensors.pop(name).reshape(rows, columns).float() - zero) * tensors.pop(name + "_scale").float()[r, c]
"""

_BRANCHES = {
    'name + ".scales" in tensors': _SCALED_CODEBOOK,
    'how["kind"] == "codebook"': _CODEBOOK,
    'how["kind"] == "float"': _FLOAT,
    'name + "_offset" in tensors': _OFFSET,
    "bits < 8": _PACKED,
    "bits == 8": _INTEGERS,
}


def safetensors_snippet(name: str, tensors: Mapping[str, StoredTensor], shared: Mapping[str, str]) -> str:
    """Needs safetensors and torch; for weights in few bits numpy too. Tied names come back as well."""
    quantized = _quantized(tensors)
    if not quantized and shared:
        return _TIED.format(name=name)
    if not quantized:
        return f'from safetensors.torch import load_file\n\ntensors = load_file("{name}")'
    opening = (
        "from safetensors import safe_open\n\n"
        f'with safe_open("{name}", "pt") as file:\n'
        "    tensors = {name: file.get_tensor(name) for name in file.keys()}\n"
        f'    layouts = json.loads(file.metadata()["{KEY}"])\n'
    )
    books = [tensor.parts[BOOK] for tensor in quantized if BOOK in tensor.parts]
    if shared or len({id(book) for book in books}) < len(books):
        opening += _ALIASES
    return _snippet(opening, quantized, "tensors")


def state_dict_snippet(name: str, tensors: Mapping[str, StoredTensor]) -> str:
    """Needs torch; for weights in few bits numpy too."""
    quantized = _quantized(tensors)
    load = f'torch.load("{name}", map_location="cpu", weights_only=True)'
    if not quantized:
        return f"import torch\n\nstate_dict = {load}"
    opening = f'\ntensors = {load}\nlayouts = json.loads(tensors.pop("{KEY}"))\n'
    return _snippet(opening, quantized, "state_dict")


def _quantized(tensors: Mapping[str, StoredTensor]) -> list[QuantizedTensor]:
    return [found for found in tensors.values() if isinstance(found, QuantizedTensor)]


def _snippet(opening: str, quantized: list[QuantizedTensor], result: str) -> str:
    wanted = {_condition(tensor) for tensor in quantized}
    branches = {condition: code for condition, code in _BRANCHES.items() if condition in wanted}
    code = "import json\nimport math\n\nimport numpy as np\nimport torch\n" + opening
    if any("codes(" in branch for branch in branches.values()):
        code += "\n" + _CODES
    code += _LOOP
    for number, (condition, branch) in enumerate(branches.items()):
        if len(branches) > 1:
            code += f"    {'elif' if number else 'if'} {condition}:\n"
        indent = "        " if len(branches) > 1 else "    "
        code += "".join(indent + line + "\n" for line in branch.splitlines())
    code += '    tensors[name] = values.reshape(how["shape"])\n'
    code += 'tensors.update({alias: tensors[name] for alias, name in layouts["shared"].items()})'
    return code if result == "tensors" else f"{code}\n{result} = tensors"


def _condition(tensor: QuantizedTensor) -> str:
    layout = tensor.layout
    if ".scales" in tensor.parts:
        return 'name + ".scales" in tensors'
    if layout.kind != "uniform":
        return f'how["kind"] == "{layout.kind}"'
    if "_offset" in tensor.parts:
        return 'name + "_offset" in tensors'
    return "bits < 8" if layout.bits < 8 else "bits == 8"
