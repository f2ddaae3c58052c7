"""TorchScript archives hold code; none is opened."""

import io
import warnings
from pathlib import Path

import torch

from tests.hostile.cases import Catalogue
from tests.hostile.containers import zip_of
from tests.hostile.pickles import pickled, touch

TORCHSCRIPT = Catalogue("torchscript", "model", "model.pt")

REASON = "format_refused|checkpoint_*"


class Network(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def scripted(module: torch.nn.Module) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(module, torch.ones(2)), out)
    return out.getvalue()


def by_hand(code: str, **members: bytes) -> bytes:
    """The members ``torch.jit.load`` looks for, around this source."""
    root = {"m/data.pkl": pickled(None), "m/constants.pkl": pickled(()), "m/version": b"3\n"}
    return zip_of(root | {"m/code/__torch__.py": code.encode()} | {f"m/{name}": held for name, held in members.items()})


@TORCHSCRIPT.refused("unsupported_format", reason=REASON)
def traced_module(_: Path) -> bytes:
    return scripted(Network())


@TORCHSCRIPT.refused("unsupported_format", reason=REASON)
def code_that_runs_while_loading(marker: Path) -> bytes:
    return by_hand(
        "class Network(Module):\n"
        "  def __setstate__(self, state: Tensor) -> NoneType:\n"
        f"    torch.save(state, {str(marker)!r})\n"
    )


@TORCHSCRIPT.refused("unsupported_format", reason=REASON)
def code_that_reads_a_file(_: Path) -> bytes:
    return by_hand("def forward(self, x):\n  return torch.from_file('/etc/passwd', False, 64, dtype=0)\n")


@TORCHSCRIPT.refused("unsupported_format", reason=REASON)
def code_that_never_ends(_: Path) -> bytes:
    return by_hand("def forward(self, x):\n  while True:\n    x = torch.add(x, 1)\n  return x\n")


@TORCHSCRIPT.refused("unsupported_format", reason=REASON, filename="model.ptl")
def mobile_bytecode(_: Path) -> bytes:
    return by_hand("", **{"bytecode.pkl": pickled((3,))})


@TORCHSCRIPT.refused("unsupported_format", reason=REASON, filename="model.pth")
def constants_alone(marker: Path) -> bytes:
    return zip_of({"m/data.pkl": pickled({}), "m/constants.pkl": pickled(touch(marker)), "m/version": b"3\n"})


@TORCHSCRIPT.refused("unsupported_format", "unsafe_model", "invalid_model", filename="model.zip")
def inside_an_archive(_: Path) -> bytes:
    return zip_of({"model.pt": scripted(Network())})
