"""Run as the program of a sandboxed child: tries what must not work and says which layers held.

The registry shows the answer, so that an operator sees what protects a worker instead of what should.
"""

import json
import socket
import sys
from pathlib import Path


def main() -> None:
    """Writes one JSON line: for each layer, whether it refused."""
    layers = {"landlock": _refused_to_read("/etc/passwd"), "seccomp": _refused_a_socket()}
    sys.stdout.write(json.dumps(layers) + "\n")


def _refused_to_read(path: str) -> bool:
    try:
        Path(path).read_bytes()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _refused_a_socket() -> bool:
    try:
        socket.socket(socket.AF_UNIX).close()
    except PermissionError:
        return True
    return False


if __name__ == "__main__":
    main()
