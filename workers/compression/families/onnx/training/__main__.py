"""``python -m workers.compression.families.onnx.training`` lists the operators that can be trained through."""

import sys

from workers.compression.families.onnx.training.operators.table import supported_operators


def main() -> None:
    """One line per kind of operator."""
    for kind, names in supported_operators().items():
        sys.stdout.write(f"{kind}: {', '.join(names)}\n")


if __name__ == "__main__":
    main()
