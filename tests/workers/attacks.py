"""What a model that got hold of its process might try; run as the program of a real sandboxed child.

``request.json`` names the attack and its arguments; the answer is one line on standard output.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def read(path: str) -> str:
    return Path(path).read_text("utf-8", "replace")[:40]


def write(path: str) -> str:
    Path(path).write_text("x")
    return "written"


def list_folder(path: str) -> str:
    return str(sorted(Path(path).iterdir()))


def connect(host: str, port: int) -> str:
    socket.create_connection((host, port), timeout=2).close()
    return "connected"


def unix_connect(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return "connected"


def fork() -> str:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    return "forked"


def execute() -> str:
    os.execv("/bin/true", ["true"])


def run_program() -> str:
    return subprocess.run(["/bin/echo", "ran"], capture_output=True, text=True, check=True).stdout


def new_session() -> str:
    os.setsid()
    return "left"


def kill(pid: int) -> str:
    os.kill(pid, signal.SIGTERM)
    return "signalled"


def survive_parent() -> str:
    if ctypes.CDLL(None, use_errno=True).prctl(1, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return "immortal"


def raise_limit() -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "raised"


def big_file(size: int) -> str:
    with Path("out/big").open("wb") as file:
        file.seek(size)
        file.write(b"x")
    return "written"


def fill_disk(size: int) -> str:
    for number in range(10_000):
        with Path(f"out/{number}").open("wb") as file:
            file.truncate(size)
        time.sleep(0.001)
    return "filled"


def big_memory(size: int) -> str:
    return str(len(bytearray(size)))


def symbolic_link(target: str) -> str:
    Path("out/model.onnx").symlink_to(target)
    return "linked"


def hard_link(target: str) -> str:
    os.link(target, "out/model.onnx")
    return "linked"


def flood(size: int) -> str:
    block = b"x" * (1 << 20)
    for _ in range(size >> 20):
        os.write(1, block)
    os.write(1, b"\n")
    return "flooded"


def segfault() -> str:
    return str(ctypes.string_at(0))


def kill_itself() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def burn() -> str:
    while True:
        pass


def sleep() -> str:
    os.write(1, b"sleeping\n")
    time.sleep(600)
    return "slept"


def ignore_sigterm() -> str:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep()


def threads() -> str:
    worker = threading.Thread(target=lambda: None)
    worker.start()
    worker.join()
    return "joined"


def environment() -> str:
    return json.dumps(sorted(os.environ))


def libraries() -> str:
    import numpy as np
    import onnxruntime
    import torch

    product = torch.ones(64, 64).matmul(torch.ones(64, 64)).sum() + np.ones(3).sum()
    return f"{onnxruntime.__name__} {float(product)}"


def main() -> None:
    request: dict[str, Any] = json.loads(Path("request.json").read_text("utf-8"))
    attack = globals()[request.pop("attack")]
    try:
        answer = f"done {attack(**request)}"
    except (OSError, MemoryError, ValueError) as error:
        answer = f"refused {type(error).__name__} {getattr(error, 'errno', '')}"
    sys.stdout.write(answer + "\n")


if __name__ == "__main__":
    main()
