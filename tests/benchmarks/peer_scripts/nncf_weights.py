"""Compresses an ONNX model's weights with NNCF and runs it in OpenVINO; only for NNCF's own environment.

    python peer_scripts/nncf_weights.py MODEL FEEDS OUTPUTS OPTIONS

FEEDS holds the inputs as arrays; OUTPUTS gets the first output in float32; OPTIONS are those of ``compress_weights`` in
JSON. Prints the bytes of the files that OpenVINO saves.
"""

import json
import sys
import tempfile
from pathlib import Path

import nncf
import numpy as np
import openvino

BATCH_ROWS = 8


def main() -> None:
    model, feeds, outputs, options = sys.argv[1:]
    wanted = json.loads(options)
    with np.load(feeds) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    rows = {kind: batches(arrays, kind) for kind in ("calibration", "evaluation")}
    mode = nncf.CompressWeightsMode[wanted.pop("mode")]
    dataset = nncf.Dataset(rows["calibration"]) if any(isinstance(value, bool) for value in wanted.values()) else None
    compressed = nncf.compress_weights(
        openvino.Core().read_model(model), mode=mode, ratio=1.0, all_layers=True, dataset=dataset, **wanted
    )
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(compressed, Path(folder) / "model.xml")
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    # Activations stay floats, as with the others.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    network = openvino.Core().compile_model(compressed, "CPU", exact)
    np.save(outputs, np.concatenate([network(batch)[0] for batch in rows["evaluation"]]))
    print(json.dumps(size))


def batches(arrays: dict[str, np.ndarray], kind: str) -> list[dict[str, np.ndarray]]:
    own = {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{kind}/")}
    count = len(next(iter(own.values())))
    return [
        {name: values[start : start + BATCH_ROWS] for name, values in own.items()}
        for start in range(0, count, BATCH_ROWS)
    ]


if __name__ == "__main__":
    main()
