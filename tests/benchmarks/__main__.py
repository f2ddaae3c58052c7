"""Every benchmark, one after the other: ``make bench``. Each also runs alone: ``python -m tests.benchmarks.<name>``."""

import subprocess
import sys
from pathlib import Path

_NO_BENCHMARKS = {"__main__", "evidence"}
_RUNS = 'if __name__ == "__main__":'


def main() -> int:
    """Runs each in a process of its own; fails if one of them does."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    names = [file.stem for file in files if file.stem not in _NO_BENCHMARKS and _RUNS in file.read_text("utf-8")]
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
