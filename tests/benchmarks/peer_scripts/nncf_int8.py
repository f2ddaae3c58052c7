"""Run by NNCF's own environment: its post-training quantization of an ONNX file.

python nncf_int8.py MODEL FEEDS.npz MADE [transformer]
"""

import sys

import nncf
import numpy as np
import onnx


def main() -> None:
    """Quantizes with the arrays ``<row>/<input>`` as calibration data."""
    source, feeds, made, *kind = sys.argv[1:]
    with np.load(feeds) as stored:
        rows: dict[str, dict[str, np.ndarray]] = {}
        for name in stored.files:
            row, _, entering = name.partition("/")
            rows.setdefault(row, {})[entering] = stored[name]
    model_type = nncf.ModelType.TRANSFORMER if kind else None
    data = nncf.Dataset(list(rows.values()), lambda row: row)
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=len(rows), model_type=model_type), made)


if __name__ == "__main__":
    main()
