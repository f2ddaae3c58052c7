"""PyTorch checkpoints: pickles in a ZIP, so every instruction of them is suspect."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.hostile.cases import READY, Catalogue
from tests.hostile.containers import Entry, forged_zip, zip_of
from tests.hostile.pickles import opcodes, pickled, touch

TORCH = Catalogue("torch", "model", "model.pth")

UNSAFE = "checkpoint_unsafe_global"
MARK, REDUCE, STOP, HEADER = b"(", b"R", b".", b"\x80\x02"


def named(module: str, name: str) -> bytes:
    """GLOBAL: puts ``module.name`` on the stack."""
    return f"c{module}\n{name}\n".encode()


def a_tuple(*items: bytes) -> bytes:
    return MARK + b"".join(items) + b"t"


def tensor(
    key: str = "0",
    shape: tuple[int, ...] = (4, 4),
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
    numel: int = 16,
    storage: str = "FloatStorage",
) -> bytes:
    """Instructions that rebuild one tensor from a storage."""
    kind = named("torch", storage)
    persistent = a_tuple(opcodes("storage"), kind, opcodes(key), opcodes("cpu"), opcodes(numel)) + b"Q"
    strides = opcodes(stride if stride is not None else (4, 1))
    hooks = named("collections", "OrderedDict") + b")" + REDUCE
    arguments = a_tuple(persistent, opcodes(offset), opcodes(shape), strides, opcodes(False), hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + REDUCE


def state(**entries: bytes) -> bytes:
    """A pickled dict of raw instruction sequences."""
    items = b"".join(opcodes(name) + value for name, value in entries.items())
    return HEADER + b"}" + MARK + items + b"u" + STOP


def checkpoint(data: bytes, storages: dict[str, bytes] | None = None, **extra: bytes) -> bytes:
    """A checkpoint around these instructions."""
    held = {"0": np.ones(16, np.float32).tobytes()} if storages is None else storages
    members = {"archive/data.pkl": data, "archive/byteorder": b"little"}
    members |= {f"archive/data/{key}": content for key, content in held.items()}
    members |= {"archive/version": b"3\n"} | {f"archive/{name}": content for name, content in extra.items()}
    return zip_of(members)


def saved(value: Any, *, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def weights() -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.linspace(-1, 1, 16).reshape(4, 4), "layer.bias": torch.ones(4)}


@TORCH.accepted()
def state_dict(_: Path) -> bytes:
    return saved(weights())


@TORCH.accepted()
def state_dict_of_a_module_with_metadata(_: Path) -> bytes:
    return saved(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8)).state_dict())


@TORCH.accepted()
def training_checkpoint_with_optimizer_state(_: Path) -> bytes:
    network = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return saved({"state_dict": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3})


@TORCH.accepted()
def crafted_state_dict(_: Path) -> bytes:
    return checkpoint(state(weight=tensor()))


# --- calls ------------------------------------------------------------------------------------------------------------


@TORCH.refused("unsafe_model", reason=UNSAFE)
def call_of_a_shell(marker: Path) -> bytes:
    return checkpoint(state(weight=tensor(), extra=opcodes(touch(marker))))


@TORCH.refused("unsafe_model", reason=UNSAFE)
def call_of_eval(marker: Path) -> bytes:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return checkpoint(state(extra=named("builtins", "eval") + a_tuple(opcodes(code)) + REDUCE))


@TORCH.refused("unsafe_model", reason=UNSAFE)
def call_through_stack_global_and_memo(marker: Path) -> bytes:
    # The name never stands beside GLOBAL: both halves are memoised first and fetched again.
    halves = b"\x8c\x02os\x94\x8c\x06system\x94" + b"00" + b"h\x00h\x01\x93"
    return checkpoint(b"\x80\x04" + halves + a_tuple(opcodes(f"touch '{marker}'")) + REDUCE + STOP)


@TORCH.refused("unsafe_model", reason=UNSAFE)
def call_by_inst(marker: Path) -> bytes:
    return checkpoint(HEADER + MARK + opcodes(f"touch '{marker}'") + b"ios\nsystem\n" + STOP)


@TORCH.refused("unsafe_model", reason=UNSAFE + "|checkpoint_*")
def call_by_obj(marker: Path) -> bytes:
    return checkpoint(HEADER + MARK + named("os", "system") + opcodes(f"touch '{marker}'") + b"o" + STOP)


@TORCH.refused("unsafe_model", reason=UNSAFE + "|checkpoint_*")
def call_of_an_extension_code(_: Path) -> bytes:
    return checkpoint(HEADER + b"\x82\x01" + b")" + REDUCE + STOP)


@TORCH.refused("unsafe_model", reason=UNSAFE)
def dotted_name_below_an_allowed_module(marker: Path) -> bytes:
    call = named("torch._utils", "os.system") + a_tuple(opcodes(f"touch '{marker}'")) + REDUCE
    return checkpoint(state(extra=call))


@TORCH.refused("unsafe_model", reason=UNSAFE)
def torch_load_again_without_restraint(_: Path) -> bytes:
    return checkpoint(state(extra=named("torch.serialization", "load") + a_tuple(opcodes("/tmp/other.pt")) + REDUCE))


@TORCH.refused("unsafe_model", reason=UNSAFE)
def whole_module(_: Path) -> bytes:
    return saved(torch.nn.Linear(4, 4))


@TORCH.refused("unsafe_model", reason=UNSAFE)
def numpy_scalar_reconstruction(_: Path) -> bytes:
    return saved({"layer": np.ones(3)})


@TORCH.refused("unsafe_model", "invalid_model", "too_large", reason="checkpoint_*|tensor_too_large")
def bytearray_of_four_gibibytes(_: Path) -> bytes:
    call = named("builtins", "bytearray") + a_tuple(opcodes(1 << 32)) + REDUCE
    return checkpoint(state(weight=tensor(), extra=call))


@TORCH.refused("unsafe_model", "invalid_model", reason="checkpoint_*")
def state_set_on_an_allowed_function(_: Path) -> bytes:
    build = named("torch._utils", "_rebuild_tensor_v2") + opcodes({"__globals__": 1}) + b"b"
    return checkpoint(state(weight=build))


@TORCH.refused("unsafe_model", "invalid_model", reason="checkpoint_*")
def call_of_an_allowed_class_that_is_no_storage(_: Path) -> bytes:
    odd = a_tuple(opcodes("module"), named("torch", "FloatStorage"), opcodes("0"), opcodes("cpu"), opcodes(4)) + b"Q"
    return checkpoint(state(weight=odd))


# --- tensors that lie -------------------------------------------------------------------------------------------------


@TORCH.refused("invalid_model", "too_large", reason="checkpoint_*|tensor_too_large")
def stride_zero_tensor_of_a_terabyte(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(shape=(1 << 20, 1 << 20), stride=(0, 0))))


@TORCH.refused("invalid_model", "too_large", reason="checkpoint_*|tensor_too_large")
def tensor_beyond_its_storage(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(shape=(64, 64), stride=(64, 1))))


@TORCH.refused("invalid_model", reason="checkpoint_*")
def offset_beyond_the_storage(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(offset=1 << 40)))


@TORCH.refused("invalid_model", reason="checkpoint_*")
def negative_offset_and_stride(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(offset=-4, stride=(-4, -1))))


@TORCH.refused("invalid_model", "too_large", READY, reason="checkpoint_*|tensor_too_large")
def storage_said_larger_than_its_record(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(numel=1 << 40)))


@TORCH.refused("invalid_model", reason="checkpoint_*")
def storage_that_is_missing(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(key="7")))


@TORCH.refused("invalid_model", "unsafe_model", reason="checkpoint_*|archive_*")
def storage_key_that_climbs_out(_: Path) -> bytes:
    return checkpoint(state(weight=tensor(key="../../../../etc/passwd")))


@TORCH.refused("invalid_model", "too_large", "unsafe_model", reason="checkpoint_*|tensor_too_large")
def memo_of_a_billion_laughs(_: Path) -> bytes:
    out = bytearray(HEADER + b"](" + opcodes("lol") * 10 + b"e" + b"r" + (1000).to_bytes(4, "little"))
    for level in range(1000, 1040):
        out += b"](" + (b"j" + level.to_bytes(4, "little")) * 10 + b"er" + (level + 1).to_bytes(4, "little")
    return checkpoint(bytes(out) + STOP)


@TORCH.refused("invalid_model", "too_large", "unsafe_model", reason="checkpoint_*")
def lists_nested_100_000_deep(_: Path) -> bytes:
    return checkpoint(HEADER + b"]" * 100_000 + b"a" * 99_999 + STOP)


@TORCH.refused("invalid_model", "too_large", reason="checkpoint_*|tensor_too_large|too_many_tensors")
def thirty_thousand_tensors(_: Path) -> bytes:
    return checkpoint(state(**{f"t{index}": tensor() for index in range(30_000)}))


@TORCH.refused("invalid_model", reason="checkpoint_*")
def no_tensors_at_all(_: Path) -> bytes:
    return checkpoint(pickled({"epoch": 3, "loss": 0.25}))


@TORCH.refused("invalid_model", "unsafe_model", reason="checkpoint_*|safetensors_*")
def name_that_is_a_path(_: Path) -> bytes:
    return checkpoint(state(**{"../../etc/passwd\x00": tensor()}))


@TORCH.refused("invalid_model", reason="checkpoint_*")
def instructions_cut_off(_: Path) -> bytes:
    return checkpoint(state(weight=tensor())[:-20])


@TORCH.refused("invalid_model", "unsafe_model", reason="checkpoint_*")
def second_pickle_behind_the_first(marker: Path) -> bytes:
    return checkpoint(state(weight=tensor()) + pickled(touch(marker)))


@TORCH.refused("invalid_model", READY)
def weights_that_are_not_finite(_: Path) -> bytes:
    return saved({"layer.weight": torch.full((4, 4), float("nan"))})


# --- the ZIP around it ------------------------------------------------------------------------------------------------


@TORCH.refused("invalid_model", "too_large", "unsafe_model", reason="checkpoint_*|archive_*")
def deflated_records(_: Path) -> bytes:
    members = {"archive/data.pkl": state(weight=tensor()), "archive/data/0": bytes(64 << 20), "archive/version": b"3\n"}
    return zip_of(members, zipfile.ZIP_DEFLATED)


@TORCH.refused("invalid_model", "unsafe_model", reason="checkpoint_*|archive_*")
def two_data_pickles(marker: Path) -> bytes:
    harmless, hostile = state(weight=tensor()), pickled(touch(marker))
    storage = np.ones(16, np.float32).tobytes()
    entries = [Entry(b"archive/data.pkl", harmless), Entry(b"archive/data/0", storage)]
    return forged_zip([*entries, Entry(b"archive/data.pkl", hostile), Entry(b"archive/version", b"3\n")])


@TORCH.refused("invalid_model", "unsafe_model", "unsupported_format", reason="checkpoint_*|archive_*|format_*")
def pickles_under_two_roots(marker: Path) -> bytes:
    members = {"a/data.pkl": state(weight=tensor()), "a/data/0": bytes(64), "a/version": b"3\n"}
    return zip_of(members | {"b/data.pkl": pickled(touch(marker)), "b/version": b"3\n"})


@TORCH.refused("invalid_model", "unsafe_model", "unsupported_format", reason="checkpoint_*|archive_*|format_*")
def shared_library_among_the_records(_: Path) -> bytes:
    return checkpoint(state(weight=tensor()), **{"extra/payload.so": b"\x7fELF" + bytes(60)})


@TORCH.refused("unsupported_format", reason="checkpoint_not_zip|format_refused", filename="model.pt")
def legacy_file(_: Path) -> bytes:
    return saved(weights(), legacy=True)


@TORCH.refused("unsupported_format", "unsafe_model", "invalid_model", filename="model.pt")
def legacy_tar(marker: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickled(touch(marker))
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@TORCH.refused("unsupported_format", reason="checkpoint_not_zip|format_refused", filename="pytorch_model.bin")
def bare_pickle_named_bin(marker: Path) -> bytes:
    return pickled(touch(marker))


@TORCH.refused("invalid_model", "unsupported_format")
def cut_off(_: Path) -> bytes:
    return saved(weights())[:700]
