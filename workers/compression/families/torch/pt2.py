"""Programs exported by ``torch.export``: gated, rebuilt, kept as a rewritten ``.pt2``."""

from pathlib import Path

from workers.compression.context import Context
from workers.compression.families.statistics import describe_tensor
from workers.compression.families.torch.pt2_gate import gate
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_program import build_program
from workers.compression.specs.messages import ModelInspection


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks an archive and writes ``clean.pt2`` below ``out``, without sample inputs and debugging text.

    Raises:
        EngineError: As ``pt2_gate.gate`` and ``pt2_program.build_program``.
    """
    model = open_model(path, context)
    clean = out / "clean.pt2"
    model.save(clean)
    return ModelInspection(
        format=model.format,
        family=model.family,
        clean=f"{out.name}/{clean.name}",
        parameters=sum(tensor.elements for _, tensor in model.parameters()),
        inputs=model.inputs,
        outputs=model.outputs,
        tensors=tuple(describe_tensor(name, array) for name, array in model.tensors()),
        details={"nodes": len(model.program.graph.nodes), "restored_weights": len(model.quantized)},
        warnings=tuple(context.warnings),
    )


def open_model(path: Path, context: Context) -> Pt2Model:
    """Opens an archive; every check is made again."""
    gated = gate(path)
    for note in gated.notes:
        context.warn(note)
    return Pt2Model(build_program(gated), path.stat().st_size)
