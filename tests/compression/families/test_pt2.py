import contextlib
import copy
import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import trained
from workers.compression.context import Context
from workers.compression.families.torch import pt2
from workers.compression.families.torch.pt2_expressions import check_expression
from workers.compression.families.torch.pt2_text import check_operator, check_tree
from workers.compression.specs.errors import EngineError, InvalidModel, UnsafeModel

PROGRAM = "models/model.json"


@cache
def exported(kind: str, folder: Path) -> Path:
    return trained.write_pt2(kind, folder / f"{kind}.pt2")


@pytest.fixture(scope="module")
def mlp_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported("mlp", tmp_path_factory.mktemp("pt2"))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


def with_program(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The archive after ``change`` edited its program, written as torch would."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in members if name.endswith(PROGRAM))
    document = copy.deepcopy(json.loads(members[program]))
    change(document)
    members[program] = json.dumps(document).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def test_the_clean_form_predicts_the_same_here_and_in_stock_torch(mlp_file: Path, context: Context) -> None:
    out = context.scratch / "out"
    out.mkdir()
    rows = torch.from_numpy(trained.digits_split()[1][:32])

    inspection = pt2.inspect(mlp_file, out, context)
    clean = context.scratch / str(inspection.clean)
    model = pt2.open_model(clean, context)

    expected = trained.trained("mlp")(rows).detach().numpy()
    assert (model.run({model.inputs[0].name: rows.numpy()})[0] == expected).all()
    assert (torch.export.load(clean).module()(rows).detach().numpy() == expected).all()
    assert inspection.parameters == sum(weight.numel() for weight in trained.trained("mlp").parameters())
    assert inspection.inputs[0].shape[1:] == (64,)
    assert isinstance(inspection.inputs[0].shape[0], str)


def test_sample_inputs_and_the_exporters_paths_are_not_kept(mlp_file: Path, context: Context) -> None:
    model = pt2.open_model(mlp_file, context)
    model.save(context.scratch / "clean.pt2")

    with zipfile.ZipFile(context.scratch / "clean.pt2") as archive:
        samples = next(name for name in archive.namelist() if "sample_inputs" in name)
        program = archive.read(next(name for name in archive.namelist() if name.endswith(PROGRAM)))
        assert archive.getinfo(samples).file_size < 1000
    assert b".py" not in program


def test_layers_are_those_of_the_module(mlp_file: Path, context: Context) -> None:
    layers = list(pt2.open_model(mlp_file, context).stored_layers())
    assert [(layer.name, layer.op, layer.parameters) for layer in layers] == [
        ("0", "linear", 64 * 256 + 256),
        ("2", "linear", 256 * 128 + 128),
        ("4", "linear", 128 * 10 + 10),
    ]


def test_a_program_returning_a_dictionary_runs_on_named_inputs(context: Context) -> None:
    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(20, 8)

        def forward(self, ids: torch.Tensor, *, mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"pooled": (self.table(ids) * mask[..., None]).sum(1)}

    module = Named().eval()
    ids, mask = torch.arange(6).reshape(2, 3), torch.ones(2, 3)
    program = torch.export.export(module, (ids,), {"mask": mask})
    torch.export.save(program, context.scratch / "named.pt2")

    model = pt2.open_model(context.scratch / "named.pt2", context)

    assert [port.name for port in model.inputs] == ["ids", "mask"]
    outputs = model.run({"ids": ids.numpy(), "mask": mask.numpy()})
    assert (outputs[0] == module(ids, mask=mask)["pooled"].detach().numpy()).all()


def rename_node(document: dict[str, Any], name: str) -> None:
    """Gives the first operator's result another name wherever it stands."""
    graph = document["graph_module"]["graph"]
    old = graph["nodes"][0]["outputs"][0]["as_tensor"]["name"]
    text = json.dumps(document["graph_module"]).replace(json.dumps(old), json.dumps(name))
    document["graph_module"] = json.loads(text)


@pytest.mark.parametrize("place", ["node", "argument", "parameter", "tree", "device", "subgraph"])
def test_text_that_torch_would_run_or_import_is_refused(
    place: str, mlp_file: Path, context: Context, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    code = f"x = open({str(marker)!r}, 'w')"

    def change(document: dict[str, Any]) -> None:
        module = document["graph_module"]
        signature = module["module_call_graph"][0]["signature"]
        if place == "node":
            rename_node(document, code)
        elif place == "argument":
            signature["forward_arg_names"] = [code]
        elif place == "parameter":
            module["signature"]["input_specs"][0]["parameter"]["parameter_name"] = code
        elif place == "tree":
            context = json.dumps({"__enum__": True, "fqn": "antigravity:fly", "name": "x"})
            signature["out_spec"] = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])
        elif place == "device":
            module["graph"]["tensor_values"]["input"]["device"]["type"] = code
        else:
            module["graph"]["nodes"][0]["inputs"][0]["arg"] = {"as_graph": {"name": "g", "graph": {}}}

    hostile = with_program(mlp_file, tmp_path / "hostile.pt2", change)
    with pytest.raises(UnsafeModel) as refused:
        pt2.inspect(hostile, tmp_path, context)

    assert str(refused.value.reason).startswith("pt2_")
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "Symbol('s31', positive=True, integer=True)",
        "Add(Integer(-2), Mul(Integer(2), Symbol('s0', integer=True)))",
        "Max(1, s0 // 2)",
        "Pow(Symbol('u0', integer=True), Integer(2))",
    ],
)
def test_arithmetic_over_symbols_passes(text: str) -> None:
    check_expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "9**9**9**9",
        "Pow(Pow(Pow(Integer(9), 8), 8), 8)",
        "Pow(2, Symbol('s0'))",
        "Symbol('s0', cls=open)",
        "Symbol('__import__(\"os\")')",
        "(lambda: 1)()",
        "s0.__class__",
        "[s0 for s0 in (1,)]",
        "f'{s0}'",
        "(" * 3000 + "1" + ")" * 3000,
        "Integer(" + "9" * 400 + ")",
        "1" * 5000,
        "",
    ],
)
def test_anything_else_does_not(text: str) -> None:
    with pytest.raises(UnsafeModel):
        check_expression(text)


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.linear.default", "torch.ops.aten.add.Tensor", "_operator.floordiv", "math.ceil", "torch.sym_max"],
)
def test_operators_of_aten_and_plain_arithmetic_pass(target: str) -> None:
    check_operator(target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.linear.default.__class__",
        "torch.ops.aten.__class__.x",
        "torch.ops.load_library",
        "torch.hub.load",
        "_operator.attrgetter",
        "_operator.pow",
        "math.factorial",
        "#custom:op",
    ],
)
def test_everything_that_is_reached_by_name_otherwise_does_not(target: str) -> None:
    with pytest.raises(UnsafeModel):
        check_operator(target)


@pytest.mark.parametrize("kind", ["collections.defaultdict", "collections.namedtuple", "builtins.set", 3])
def test_containers_that_import_something_are_refused(kind: object) -> None:
    with pytest.raises(UnsafeModel):
        check_tree(json.dumps([1, {"type": kind, "context": "null", "children_spec": []}]))


def test_a_program_that_contradicts_its_weights_is_invalid(mlp_file: Path, context: Context, tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] = "missing"

    with pytest.raises(InvalidModel):
        pt2.open_model(with_program(mlp_file, tmp_path / "bad.pt2", change), context)


def test_every_flipped_byte_of_the_program_ends_in_a_clean_answer(
    mlp_file: Path, context: Context, tmp_path: Path
) -> None:
    content = mlp_file.read_bytes()
    for position in range(200, len(content), len(content) // 40):
        damaged = tmp_path / "damaged.pt2"
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0x21]) + content[position + 1 :])
        with contextlib.suppress(EngineError):
            pt2.open_model(damaged, context)
