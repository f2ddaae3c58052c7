"""Every benchmark, one after the other: ``make bench``. Each also runs alone: ``python -m tests.benchmarks.<name>``."""

import pkgutil
import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {
    "__main__", "evidence", "inputs", "peers", "rows", "text_training_peers", "training_inputs", "training_peers",
    "training_rows", "training_runs",
}  # fmt: skip


def main() -> int:
    """Runs each in a process of its own; fails if one of them does."""
    names = sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]))
    failed = []
    for name in names:
        if name in NOT_BENCHMARKS:
            continue
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
