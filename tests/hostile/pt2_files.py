"""torch.export archives, each place that would run code when opened carelessly."""

import copy
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.hostile.cases import Catalogue
from tests.hostile.containers import zip_of
from tests.hostile.pickles import pickled, touch

PT2 = Catalogue("pt2", "model", "model.pt2")

REASON = "pt2_*"
PROGRAM = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


@cache
def exported() -> dict[str, bytes]:
    """Members of a sound archive with one dynamic axis, without their root folder."""
    torch.manual_seed(0)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {"x": {0: torch.export.Dim("n")}}
        program = torch.export.export(Network().eval(), (torch.ones(3, 4),), dynamic_shapes=shapes)
        torch.export.save(program, out)
    with zipfile.ZipFile(out) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    return zip_of({f"model/{name}": content for name, content in members.items()}, method)


def with_members(**members: bytes) -> bytes:
    return packed(exported() | members)


def with_json(member: str, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The archive after ``change`` edited one of its JSON documents."""
    document = copy.deepcopy(json.loads(exported()[member]))
    change(document)
    return with_members(**{member: json.dumps(document).encode()})


def graph(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["graph_module"]["graph"]
    return found


@PT2.accepted()
def linear_with_a_dynamic_axis(_: Path) -> bytes:
    return packed(exported())


@PT2.refused("unsafe_model", reason=REASON)
def weight_that_is_a_pickle(marker: Path) -> bytes:
    config = json.loads(exported()[WEIGHTS])
    config["config"]["layer.weight"]["use_pickle"] = True
    return with_members(**{WEIGHTS: json.dumps(config).encode(), "data/weights/weight_0": pickled(touch(marker))})


@PT2.refused("unsafe_model", reason=REASON + "|checkpoint_*")
def sample_inputs_that_are_a_pickle(marker: Path) -> bytes:
    return with_members(**{SAMPLES: pickled(touch(marker))})


@PT2.refused("unsafe_model", reason=REASON + "|checkpoint_*")
def sample_inputs_that_call_a_shell(marker: Path) -> bytes:
    return with_members(**{SAMPLES: zip_of({"a/data.pkl": pickled(((touch(marker),), {})), "a/version": b"3\n"})})


@PT2.refused("unsafe_model", reason=REASON)
def constant_that_is_an_opaque_object(marker: Path) -> bytes:
    config = {
        "config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    held = {CONSTANTS: json.dumps(config).encode(), "data/constants/opaque_obj_0": pickled(touch(marker))}
    return with_members(**held)


@PT2.refused("unsafe_model", reason=REASON)
def constant_that_is_a_custom_object(marker: Path) -> bytes:
    config = {
        "config": {"c": {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    held = {CONSTANTS: json.dumps(config).encode(), "data/constants/custom_obj_0": pickled(touch(marker))}
    return with_members(**held)


@PT2.refused("unsafe_model", reason=REASON)
def symbolic_expression_that_is_python(marker: Path) -> bytes:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def change(document: dict[str, Any]) -> None:
        graph(document)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = code

    return with_json(PROGRAM, change)


@PT2.refused("unsafe_model", "invalid_model", "too_large", reason=REASON)
def symbolic_expression_that_never_ends(_: Path) -> bytes:
    def change(document: dict[str, Any]) -> None:
        graph(document)["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"] = "9**9**9**9"

    return with_json(PROGRAM, change)


@PT2.accepted()
def guards_that_are_python(marker: Path) -> bytes:
    # Accepted because the clean form holds no guards at all; the marker shows that these never ran.
    def change(document: dict[str, Any]) -> None:
        document["guards_code"] = [f"__import__('pathlib').Path({str(marker)!r}).touch() or True"]

    return with_json(PROGRAM, change)


@PT2.refused("unsafe_model", "unsupported_format", reason="pt2_native_code|format_refused")
def compiled_library(_: Path) -> bytes:
    return with_members(**{"data/aotinductor/model/model.so": b"\x7fELF\x02\x01\x01" + bytes(64)})


@PT2.refused("unsafe_model", "unsupported_format", reason="pt2_*|format_refused")
def compiled_library_under_another_name(_: Path) -> bytes:
    return with_members(**{"data/constants/notes.bin": b"\x7fELF\x02\x01\x01" + bytes(64)})


@PT2.refused("unsafe_model", "unsupported_format", reason="pt2_*|format_refused")
def wrapper_source_of_the_compiler(_: Path) -> bytes:
    return with_members(**{"data/aotinductor/model/wrapper.cpp": b"int main() {}"})


def _calling(target: str) -> bytes:
    def change(document: dict[str, Any]) -> None:
        graph(document)["nodes"][1]["target"] = target

    return with_json(PROGRAM, change)


TARGETS = {
    "module_function": "torch.os.system",
    "operator_that_reads_files": "torch.ops.aten.from_file.default",
    "operator_that_writes_files": "torch.ops.aten.save.default",
    "operator_of_another_library": "torch.ops.evil.run.default",
    "python_builtin": "builtins.eval",
    "attribute_getter": "_operator.attrgetter",
    "profiler": "torch.ops.profiler._record_function_enter.default",
    "higher_order_wrapper": "torch.ops.higher_order.auto_functionalized",
}
for label, target in TARGETS.items():
    PT2.add(f"calls_{label}", lambda _, target=target: _calling(target), ("unsafe_model",), (REASON,))


@PT2.refused("unsafe_model", reason=REASON)
def tree_that_imports_a_module(_: Path) -> bytes:
    factory = {"default_factory_module": "this", "default_factory_name": "s", "dict_context": []}
    spec = [1, {"type": "collections.defaultdict", "context": factory, "children_spec": []}]

    def change(document: dict[str, Any]) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = json.dumps(spec)

    return with_json(PROGRAM, change)


@PT2.refused("invalid_model", "unsafe_model", "too_large", reason=REASON)
def weight_of_a_terabyte_by_its_shape(_: Path) -> bytes:
    def change(document: dict[str, Any]) -> None:
        meta = document["config"]["layer.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": 1 << 20}, {"as_int": 1 << 20}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

    return with_json(WEIGHTS, change)


@PT2.refused("invalid_model", "unsafe_model", reason=REASON)
def weight_file_that_climbs_out(_: Path) -> bytes:
    def change(document: dict[str, Any]) -> None:
        document["config"]["layer.weight"]["path_name"] = "../../../../etc/passwd"

    return with_json(WEIGHTS, change)


@PT2.refused("too_large", "invalid_model", "unsafe_model", reason=REASON)
def three_hundred_thousand_nodes(_: Path) -> bytes:
    def change(document: dict[str, Any]) -> None:
        node = {"target": "torch.ops.aten.relu.default", "inputs": [], "outputs": [], "metadata": {}}
        graph(document)["nodes"].extend([node] * 300_000)

    return with_json(PROGRAM, change)


@PT2.refused("invalid_model", "unsafe_model", reason=REASON + "|json_*")
def program_nested_100_000_deep(_: Path) -> bytes:
    return with_members(**{PROGRAM: b"[" * 100_000 + b"]" * 100_000})


@PT2.refused("invalid_model", "unsafe_model", "too_large", reason=REASON + "|archive_*")
def deflated_members(_: Path) -> bytes:
    return packed(exported(), zipfile.ZIP_DEFLATED)


@PT2.refused("invalid_model", "unsafe_model", "unsupported_format", reason="*")
def no_program(_: Path) -> bytes:
    return packed({name: content for name, content in exported().items() if name != PROGRAM})


@PT2.refused("invalid_model", "unsafe_model", reason=REASON)
def weight_that_is_missing(_: Path) -> bytes:
    return packed({name: content for name, content in exported().items() if name != "data/weights/weight_0"})


@PT2.refused("unsafe_model", "invalid_model", reason=REASON)
def extra_member_nobody_asked_for(marker: Path) -> bytes:
    return with_members(**{"extra/payload.pkl": pickled(touch(marker))})
