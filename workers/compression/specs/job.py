"""The parts of a job request that the engine understands too."""

from typing import Annotated, Any, Literal

from pydantic import Field

from workers.compression.specs.step import Contract

MetricName = Literal["accuracy", "f1", "auc", "rmse", "mae", "r2", "spearman", "pearson", "fidelity"]
BatchSize = Annotated[int, Field(ge=1, le=1024)]
InputShapes = dict[str, tuple[Annotated[int, Field(ge=0, le=1 << 24)], ...]]


class Target(Contract):
    """What the artifact will run on. ``auto`` is the CPU of the worker that takes the job."""

    hardware: Literal["auto", "cpu-avx2", "cpu-vnni", "cpu-arm64"] = "auto"
    runtime: Literal["auto", "onnxruntime", "torch", "scikit-learn"] = "auto"
    threads: int = Field(1, ge=1, le=64, description="Threads used when latency is measured.")


class Evaluation(Contract):
    """How original and compressed are judged."""

    metric: MetricName | None = Field(None, description="Headline metric; by default the task's own.")
    batch_sizes: tuple[BatchSize, ...] = Field((1, 8), min_length=1, max_length=8)
    max_samples: int = Field(2000, ge=1, le=1_000_000, description="Evaluation rows used at most.")
    repeats: int = Field(50, ge=5, le=10_000, description="Timed calls per batch size and model.")
    input_shapes: InputShapes = Field(
        default_factory=dict, description="Fills dynamic axes when inputs have to be made up."
    )


class ImagePreprocessing(Contract):
    """How image files become tensors: resize, scale to 0..1 times ``scale``, subtract ``mean``, divide by ``std``."""

    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 1.0 / 255.0


class TextPreprocessing(Contract):
    """How text becomes token ids and hidden states become one vector."""

    max_length: int = Field(128, ge=1, le=8192)
    pooling: Literal["mean", "cls", "none"] = "mean"


class Preprocessing(Contract):
    """Union of what images and text need; fields that do not apply to the data stay unset."""

    size: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    max_length: int | None = Field(None, ge=1, le=8192)
    pooling: Literal["mean", "cls", "none"] | None = None

    def image(self) -> ImagePreprocessing:
        """The image part, defaults filled in."""
        return ImagePreprocessing(**self._given(ImagePreprocessing))

    def text(self) -> TextPreprocessing:
        """The text part, defaults filled in."""
        return TextPreprocessing(**self._given(TextPreprocessing))

    def _given(self, part: type[Contract]) -> dict[str, Any]:
        return {key: value for key in part.model_fields if (value := getattr(self, key)) is not None}


class DatasetFields(Contract):
    """What the uploader said about the columns or arrays; everything else is detected."""

    target_column: str | None = Field(None, max_length=256)
    task: Literal["classification", "regression", "similarity", "fidelity"] | None = None
    preprocessing: Preprocessing = Preprocessing()
