"""Stands where the engine stands in a child and does what the model's content tells it to, mostly something bad.

The model is a JSON object: ``{"compress": "segfault"}`` makes the child of that task crash; a task that is not named
does its work well.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

SIDE = {"size_bytes": 1000, "parameters": 16, "nonzero_parameters": 16, "bits_per_parameter": 32.0}
COMPARISON = {
    "kind": "comparison",
    "metrics": {"original": SIDE, "compressed": SIDE | {"size_bytes": 400}, "ratios": {"size": 2.5}},
    "evaluation": {"task": "fidelity", "metric": "fidelity", "rows": 4, "synthetic": True, "split": "All rows."},
}
GOOD: dict[str, dict[str, Any]] = {
    "inspect_model": {
        "kind": "model_inspection",
        "format": "safetensors",
        "family": "tensors",
        "clean": "out/clean",
        "parameters": 16,
    },
    "compress": {
        "kind": "compressed",
        "path": "out/model.safetensors",
        "name": "model.safetensors",
        "format": "safetensors",
        "steps": [],
        "load": "safetensors.numpy.load_file('model.safetensors')",
    },
    "probe": {"kind": "probe_result", "load_ms": 1.0, "peak_memory_bytes": 1000},
    "compare": COMPARISON,
}


def safetensors() -> bytes:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(16)


def emit(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def finish(outcome: Any) -> None:
    Path("result.json").write_text(json.dumps(outcome))
    sys.exit(0)


def good(task: str) -> None:
    emit(type="progress", fraction=0.5, step=task, message="half way")
    emit(type="log", message=f"{task} done")
    for name in ("clean", "model.safetensors"):
        Path("out", name).write_bytes(safetensors())
    finish({"result": GOOD[task]})


def measured(data: str, known: tuple[int, ...] = ()) -> dict[str, Any]:
    """An analysis of the model and the rows that it was given, at 4 bits and those that were known."""
    request = json.loads(Path("request.json").read_text())
    options = [{"bits": bits, "error": 1.0 / bits} for bits in sorted({4, *known})]
    identity = {
        "model": request["model"]["sha256"],
        "data": data,
        "synthetic": True,
        "rows": 32,
        "algorithm": "rtn",
        "scheme": "affine",
        "group_size": 32,
    }
    weights = [{"name": "weight", "layer": "layer", "parameters": 16, "options": options}]
    layer = {"name": "layer", "op": "MatMul", "parameters": 16, "bytes_before": 64, "bytes_after": 64, "bits": 32.0}
    return {
        "kind": "analyzed",
        "sensitivity": {"measured": identity, "rows": 4, "weights": weights},
        "layers": [layer | {"sparsity": 0.0, "sensitivity": 0.25}],
        "seconds": 0.5,
    }


def analyze(task: str) -> None:
    """Measures on made-up rows, and says how many maps it was told of."""
    request = json.loads(Path("request.json").read_text())
    emit(type="log", message=f"told of {len(request['sensitivities'])} maps")
    facts = json.dumps({"input_shapes": {}, "synthetic": request["seed"]}, sort_keys=True)
    finish({"result": measured(hashlib.sha256(facts.encode()).hexdigest())})


def analyze_others(task: str) -> None:
    finish({"result": measured("f" * 64)})


def hang(task: str) -> None:
    emit(type="progress", fraction=0.5, step=task, message="hanging")
    time.sleep(600)


def once(task: str) -> None:
    """Hangs in the first attempt only, told by the name of the job's folder."""
    if first_attempt():
        hang(task)
    good(task)


def write_checkpoint(update: int, content: str, *, finished: bool = False, step: str = "recipe/0") -> Path:
    path = Path("out", f"checkpoint-{update}")
    path.with_suffix(".part").write_text(content)
    path.with_suffix(".part").rename(path)
    emit(type="checkpoint", checkpoint={"step": step, "path": str(path), "update": update, "finished": finished})
    return path


def go_on(task: str) -> None:
    """Says what it was given to go on from, then does its work well."""
    for found in json.loads(Path("request.json").read_text())["checkpoints"]:
        emit(type="log", message=f"{found['step']} at {found['update']}: {Path(found['path']).read_text()}")
    good(task)


def first_attempt() -> bool:
    return Path.cwd().parent.name.endswith("-1")


def train_and_die(task: str) -> None:
    """Writes checkpoints and is killed in the first attempt, goes on in the next one."""
    if first_attempt():
        for update in (1, 2, 3):
            write_checkpoint(update, f"weights {update}")
        killed(task)
    go_on(task)


def train_and_hang(task: str) -> None:
    """Writes checkpoints, reports once the last of them has been taken away, and hangs; goes on in the next attempt."""
    if first_attempt():
        write_checkpoint(1, "weights 1")
        last = write_checkpoint(2, "weights 2", finished=True)
        while last.exists():
            time.sleep(0.01)
        hang(task)
    go_on(task)


def train_on_and_on(task: str) -> None:
    """Makes one update per attempt until there are three; each but the last one hangs after its checkpoint."""
    found = json.loads(Path("request.json").read_text())["checkpoints"]
    update = 1 + (int(Path(found[0]["path"]).read_text()) if found else 0)
    if update < 3:
        write_checkpoint(update, str(update))
        hang(task)
    emit(type="log", message=f"trained {update} updates")
    good(task)


def hostile_checkpoints(task: str) -> None:
    """Names everything but a plain file of its own, many times over, and more steps than its recipe has."""
    # Some of these the sandbox refuses already.
    for make, arguments in (
        (os.symlink, ("/etc/passwd", "out/link")),
        (os.symlink, ("/etc", "out/folder-link")),
        (os.link, ("request.json", "out/hard")),
        (os.mkfifo, ("out/pipe",)),
        (os.mkdir, ("out/folder",)),
    ):
        with contextlib.suppress(OSError):
            make(*arguments)
    names = ("link", "folder-link/passwd", "hard", "pipe", "folder", "missing", "../request.json", "a/" * 500)
    paths = ("/etc/passwd", "out", *(f"out/{name}" for name in names))
    for number, path in enumerate(paths * 20):
        emit(type="checkpoint", checkpoint={"step": "recipe/0", "path": path, "update": number, "finished": False})
        time.sleep(0.002)
    Path("out/real").write_text("weights")
    for number in range(5_000):
        emit(type="checkpoint", checkpoint={"step": f"s{number}", "path": "out/real", "update": 1, "finished": True})
    good(task)


def good_and_more(task: str) -> None:
    Path("out/adapter.safetensors").write_bytes(safetensors())
    extra = {"path": "out/adapter.safetensors", "name": "adapter.safetensors", "format": "safetensors", "load": "open"}
    Path("out/model.safetensors").write_bytes(safetensors())
    finish({"result": GOOD[task] | {"extras": [extra]}})


def adapter_outside(task: str) -> None:
    extra = {"path": "/etc/passwd", "name": "adapter", "format": "raw", "load": ""}
    Path("out/model.safetensors").write_bytes(safetensors())
    finish({"result": GOOD[task] | {"extras": [extra]}})


def adapter_pickled(task: str) -> None:
    Path("out/adapter").write_bytes(b"\x80\x04evil pickle")
    Path("out/model.safetensors").write_bytes(safetensors())
    extra = {"path": "out/adapter", "name": "adapter", "format": "safetensors", "load": ""}
    finish({"result": GOOD[task] | {"extras": [extra]}})


def segfault(_: str) -> None:
    ctypes.string_at(0)


def abort(_: str) -> None:
    os.abort()


def killed(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def memory(_: str) -> None:
    bytearray(1 << 45)


def burn(_: str) -> None:
    while True:
        pass


def disk(_: str) -> None:
    with Path("out/big").open("wb") as file:
        file.truncate(1 << 45)


def silent(_: str) -> None:
    sys.exit(0)


def refuse(_: str) -> None:
    finish({"failure": {"code": "invalid_model", "detail": "It is no model.", "reason": "safetensors_invalid"}})


def nan(task: str) -> None:
    finish({"result": GOOD[task] | {"load_ms": float("nan"), "metrics": {}}})


def other_kind(task: str) -> None:
    finish({"result": GOOD["probe" if task != "probe" else "compress"]})


def outside(task: str) -> None:
    field = "clean" if task == "inspect_model" else "path"
    finish({"result": GOOD[task] | {field: "/etc/passwd"}})


def not_a_model(task: str) -> None:
    Path("out/model.safetensors").write_bytes(b"\x80\x04evil pickle")
    finish({"result": GOOD[task]})


def nothing(task: str) -> None:
    finish({"result": GOOD[task] | {"metrics": {"original": SIDE, "compressed": SIDE, "ratios": {"size": 1.0}}}})


def chatter(task: str) -> None:
    for number in range(50_000):
        emit(type="progress", fraction=number / 50_000, step=task)
    os.write(1, b"no json\n" + b"x" * 10_000 + b"\n")
    emit(type="progress", fraction=7, step="over the top")
    good(task)


def behaviour_for(request: dict[str, Any]) -> str:
    original = request.get("original") or request.get("model")
    path = Path(original["path"] if original else request["path"])
    return str(json.loads(path.read_text()).get(request["task"], "good"))


def main() -> None:
    request = json.loads(Path("request.json").read_text())
    globals()[behaviour_for(request)](request["task"])


if __name__ == "__main__":
    main()
