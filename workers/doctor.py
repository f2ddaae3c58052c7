"""``python -m workers.doctor``: what this machine offers a worker, as one JSON object."""

import json
import sys

from workers.hardware import describe_hardware, describe_sandbox, installed_versions


def main() -> None:
    """Writes hardware, sandbox layers (tried on a real child) and library versions."""
    found = {"hardware": describe_hardware(), "sandbox": describe_sandbox(), "versions": installed_versions()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
