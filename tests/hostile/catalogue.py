"""Every hostile file there is, format by format."""

from tests.hostile import onnx_expansion, onnx_external, onnx_operators, onnx_structure
from tests.hostile.archives import ARCHIVES
from tests.hostile.cases import Case, Catalogue
from tests.hostile.csv_jsonl import CSV, JSONL
from tests.hostile.huggingface_dirs import HUGGINGFACE
from tests.hostile.images import IMAGES
from tests.hostile.npz_files import NPZ
from tests.hostile.onnx_graphs import ONNX
from tests.hostile.parquet_files import PARQUET
from tests.hostile.pickles import PICKLED_DATASETS, PICKLES
from tests.hostile.pt2_files import PT2
from tests.hostile.safetensors_files import SAFETENSORS
from tests.hostile.skops_files import SKOPS
from tests.hostile.torch_files import TORCH
from tests.hostile.torchscript_files import TORCHSCRIPT
from tests.hostile.xgboost_lightgbm import LIGHTGBM, XGBOOST

# These fill the ONNX catalogue when they are imported.
ONNX_MODULES = (onnx_expansion, onnx_external, onnx_operators, onnx_structure)

MODELS: tuple[Catalogue, ...] = (
    ONNX,
    ARCHIVES,
    SAFETENSORS,
    TORCH,
    HUGGINGFACE,
    PT2,
    TORCHSCRIPT,
    SKOPS,
    PICKLES,
    XGBOOST,
    LIGHTGBM,
)
DATASETS: tuple[Catalogue, ...] = (NPZ, CSV, JSONL, PARQUET, IMAGES, PICKLED_DATASETS)


def all_cases() -> list[Case]:
    """In the order of the catalogues."""
    return [case for catalogue in (*MODELS, *DATASETS) for case in catalogue.cases]
