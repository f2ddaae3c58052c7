"""The kinds of model Pressroom knows, by how they are stored and by what they are."""

from enum import StrEnum


class ModelFormat(StrEnum):
    """How a model is stored; a technique declares which of these it serves."""

    ONNX = "onnx"
    PT2 = "pt2"
    HUGGINGFACE = "huggingface"
    SAFETENSORS = "safetensors"
    TORCH_STATE_DICT = "torch_state_dict"
    SKOPS = "skops"


class Family(StrEnum):
    """What a model is, whatever file holds it."""

    NEURAL_NETWORK = "neural_network"
    TENSORS = "tensors"
    TREE_ENSEMBLE = "tree_ensemble"


class DatasetFormat(StrEnum):
    """How a dataset is stored."""

    NPZ = "npz"
    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"
    IMAGE_FOLDER = "image_folder"


class Task(StrEnum):
    """What a dataset asks of a model; ``fidelity`` means that it has no labels."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SIMILARITY = "similarity"
    FIDELITY = "fidelity"


RUNNABLE_FORMATS = frozenset({ModelFormat.ONNX, ModelFormat.PT2, ModelFormat.HUGGINGFACE, ModelFormat.SKOPS})
NETWORK_FORMATS = (ModelFormat.ONNX, ModelFormat.PT2, ModelFormat.HUGGINGFACE)
TENSOR_FORMATS = (ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT)
"""Bare tensors: they can be counted and changed, not run."""
