"""What a ``.pt2`` must satisfy before torch deserializes any of it, and the clean program that is then handed over.

``torch.export.load`` (2.13) unpickles weights, constants and sample inputs, evaluates symbolic sizes as Python, loads
compiled libraries and runs guards; none of that is reached from here. The archive is read by ``torch_archive``, the
program is rebuilt from checked text only, and tensors are mapped from their bytes.
"""

import io
import mmap
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from workers.compression.families.tensors.pickle_gate import MAX_PICKLE_BYTES, check_pickle
from workers.compression.families.tensors.torch_archive import TorchArchive, open_torch_archive
from workers.compression.families.torch.pt2_payloads import read_payloads
from workers.compression.families.torch.pt2_text import DOTTED_NAME, TEXT_RULES
from workers.compression.specs.containers.json_limits import parse_json
from workers.compression.specs.errors import EngineError, InvalidModel, TooLarge, UnsafeModel, UnsupportedFormat

_REASON: Final = "pt2_invalid"
_MAX_PROGRAM_BYTES: Final = 64 << 20
_MAX_NODES: Final = 200_000
_MEMBERS: Final = re.compile(
    r"models/[\w\-]+\.json|data/weights/weight_\d+|data/weights/[\w\-]+_weights_config\.json"
    r"|data/constants/tensor_\d+|data/constants/[\w\-]+_constants_config\.json|data/sample_inputs/[\w\-]+\.pt"
    r"|archive_format|archive_version|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/(?:version|serialization_id)",
    re.ASCII,
)
_PICKLED: Final = re.compile(r"data/constants/(?:custom|opaque)_obj_.*|data/(?:weights|constants)/[^/]*\.pt", re.ASCII)
_REFUSED_KEYS: Final = frozenset(
    {"as_graph", "as_operator", "as_custom_obj", "custom_obj", "as_string_to_argument", "token", "opaque"}
)
_FREE_KEYS: Final = frozenset({"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"})


@dataclass(frozen=True)
class GatedProgram:
    """A checked program.

    Args:
        document: The program as torch's schema has it; no guards, no debugging text.
        weights: State dict, mapped from the file.
        constants: Constant tensors, mapped from the file.
        notes: Sentences about what was changed.
    """

    document: dict[str, Any]
    weights: dict[str, torch.Tensor]
    constants: dict[str, torch.Tensor]
    notes: tuple[str, ...]


def gate(path: Path) -> GatedProgram:
    """Reads an archive that may be anyone's.

    Raises:
        UnsafeModel: It holds pickles, machine code, or text that torch would run or import.
        UnsupportedFormat: It is compiled, or of another layout than torch's since 2.8.
        InvalidModel: It is damaged or contradicts itself.
        TooLarge: It is a bomb.
    """
    archive = open_torch_archive(path, _REASON)
    name = _check_members(archive)
    _check_sample_inputs(archive, name)
    document, notes = _clean_document(archive.read(f"models/{name}.json", _MAX_PROGRAM_BYTES))
    _check_text(document)
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return GatedProgram(
        document=document,
        weights=read_payloads(archive, content, f"data/weights/{name}_weights_config.json", "data/weights"),
        constants=read_payloads(archive, content, f"data/constants/{name}_constants_config.json", "data/constants"),
        notes=tuple(notes),
    )


def _check_members(archive: TorchArchive) -> str:
    """Raises for members that no plain program has; returns the name of the one program."""
    with archive.path.open("rb") as file:
        for name, member in archive.members.items():
            file.seek(member.offset)
            if name.startswith("data/aotinductor/") or file.read(4)[: member.size] == b"\x7fELF":
                raise UnsupportedFormat(f"Member {name[:100]!r} is machine code.", reason="pt2_native_code")
            if _PICKLED.fullmatch(name):
                raise UnsafeModel(f"Member {name[:100]!r} is a pickle.", reason="pt2_pickle")
            if not _MEMBERS.fullmatch(name):
                raise UnsafeModel(f"Member {name[:100]!r} is no part of an exported program.", reason="pt2_member")
    programs = [name for name in archive.members if name.startswith("models/")]
    if len(programs) != 1:
        raise InvalidModel(f"The archive holds {len(programs)} programs; one is served.", reason=_REASON)
    if archive.read("archive_format", 16) != b"pt2" or archive.read("byteorder", 16) != b"little":
        raise InvalidModel("The archive is no little-endian pt2.", reason=_REASON)
    return programs[0].removeprefix("models/").removesuffix(".json")


def _check_sample_inputs(archive: TorchArchive, name: str) -> None:
    """Sample inputs are dropped anyway; those that hide code refuse the upload all the same."""
    member = f"data/sample_inputs/{name}.pt"
    if member not in archive.members or not archive.members[member].size:
        return
    content = archive.read(member, archive.members[member].size)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as samples:
            pickles = [entry for entry in samples.infolist() if entry.filename.endswith("/data.pkl")]
            for entry in pickles:
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MAX_PICKLE_BYTES:
                    raise InvalidModel("The sample inputs are stored in an unusual way.", reason="pt2_sample_inputs")
                check_pickle(samples.read(entry))
    except zipfile.BadZipFile as error:
        raise UnsafeModel("The sample inputs are a bare pickle.", reason="pt2_sample_inputs") from error
    except EngineError as error:
        error.reason = "pt2_sample_inputs"
        raise


def _clean_document(content: bytes) -> tuple[dict[str, Any], list[str]]:
    if content.count(b'"target"') > _MAX_NODES:
        raise TooLarge(f"The program has more than {_MAX_NODES} nodes.", reason="pt2_too_large")
    document = parse_json(content, InvalidModel)
    try:
        return _without_extras(document)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidModel("The program is described in an unknown way.", reason=_REASON) from error


def _without_extras(document: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The program without guards, stack traces and submodule signatures, for the CPU."""
    notes = ["The guards of the exported program were dropped."] if document.get("guards_code") else []
    module = document["graph_module"]
    graph = dict(module["graph"])
    if graph.pop("custom_obj_values", None):
        raise UnsafeModel("The program holds custom objects.", reason="pt2_pickle")
    for node in graph["nodes"]:
        node["metadata"] = {}
    root = module["module_call_graph"][0]
    if root["fqn"] != "":
        raise InvalidModel("The program does not describe its inputs and outputs.", reason=_REASON)
    signature = {**root["signature"], "inputs": [], "outputs": []}
    clean = {
        "graph_module": {
            "graph": graph,
            "signature": module["signature"],
            "module_call_graph": [{"fqn": "", "signature": signature}],
        },
        **{
            key: document[key]
            for key in ("opset_version", "range_constraints", "schema_version", "verifiers", "torch_version")
        },
    }
    if _move_to_cpu(clean):
        notes.append("The program was exported for another device and now runs on the CPU.")
    return clean, notes


def _move_to_cpu(document: Any) -> bool:
    moved = False
    waiting = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("type") == "cuda":
                node.update(type="cpu", index=None)
                moved = True
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return moved


def _check_text(document: dict[str, Any]) -> None:
    """Holds every key and every string of the program to its rule."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, node = waiting.pop()
        if isinstance(node, dict):
            for name, value in node.items():
                if name in _REFUSED_KEYS:
                    raise UnsafeModel(f"The program holds {name}, which is not served.", reason="pt2_operator")
                if not DOTTED_NAME.fullmatch(name) or (key in _FREE_KEYS and not name.isidentifier()):
                    raise UnsafeModel(f"The program holds the name {name[:100]!r}.", reason="pt2_name")
                waiting.append((name, value))
        elif isinstance(node, list):
            waiting.extend((key, value) for value in node)
        elif isinstance(node, str):
            rule = TEXT_RULES.get(key)
            if rule is None:
                raise UnsafeModel(f"The program holds the text {node[:100]!r} as {key[:50]!r}.", reason="pt2_name")
            rule(node)
