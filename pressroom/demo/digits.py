"""A network trained in seconds on scikit-learn's real handwritten digits, as ONNX, with its labelled test split."""

import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

HIDDEN = (512, 256)
EPOCHS = 30
# Opset 17 and IR 8 load in every onnxruntime since 1.13.
OPSET, IR_VERSION = 17, 8
Floats = npt.NDArray[np.float32]


def train() -> tuple[MLPClassifier, Floats, npt.NDArray[np.int64]]:
    """The trained network, and images [n, 64] in 0..1 with labels that it has not seen."""
    images, labels = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        images.astype(np.float32) / 16.0, labels.astype(np.int64), test_size=0.4, random_state=0, stratify=labels
    )
    network = MLPClassifier(HIDDEN, max_iter=EPOCHS, random_state=0, batch_size=64)
    # Products this small are faster on one thread, by far so on a machine that is busy with other things.
    with warnings.catch_warnings(), threadpool_limits(1):
        # A fixed number of epochs is what is wanted; running out of them is no news.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(seen, seen_labels)
    return network, unseen, unseen_labels


def to_onnx(network: MLPClassifier) -> onnx.ModelProto:
    """The network as the usual chain of Gemm and Relu with a Softmax at its end."""
    nodes, initializers, value = [], [], "input"
    last = len(network.coefs_) - 1
    for index, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        initializers += [
            numpy_helper.from_array(np.asarray(array, np.float32), f"layer{index}.{name}")
            for name, array in (("weight", weights), ("bias", bias))
        ]
        inputs = [value, f"layer{index}.weight", f"layer{index}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [f"sum{index}"], name=f"layer{index}"))
        operator, value = ("Softmax", "probabilities") if index == last else ("Relu", f"hidden{index}")
        nodes.append(helper.make_node(operator, [f"sum{index}"], [value], name=f"{operator.lower()}{index}"))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", network.n_features_in_])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(network.classes_)])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def main(folder: Path) -> None:
    """Writes ``digits.onnx`` and ``digits-test.npz``."""
    network, images, labels = train()
    onnx.save(to_onnx(network), folder / "digits.onnx")
    np.savez(folder / "digits-test.npz", input=images, target=labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
