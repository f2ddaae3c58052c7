"""Sessions of onnxruntime, and what its refusals mean."""

from collections.abc import Mapping

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from workers.compression.families.model import Array
from workers.compression.specs.errors import DatasetMismatch, InvalidModel, UnsupportedOperator

_FATAL_ONLY = 4


def open_session(
    data: bytes,
    threads: int = 1,
    level: onnxruntime.GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> onnxruntime.InferenceSession:
    """A CPU session from bytes, so that the runtime has no folder in which to look for other files."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (runtime_errors.NotImplemented, runtime_errors.NoSuchFile) as error:
        raise UnsupportedOperator(f"onnxruntime has no kernel for this model: {brief(error)}") from error
    except (
        runtime_errors.InvalidGraph,
        runtime_errors.InvalidProtobuf,
        runtime_errors.InvalidArgument,
        runtime_errors.Fail,
        runtime_errors.RuntimeException,
    ) as error:
        raise InvalidModel(f"onnxruntime refuses the model: {brief(error)}", reason="onnx_invalid") from error


def run_session(session: onnxruntime.InferenceSession, outputs: list[str], feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs for one batch, refusals translated."""
    try:
        results: list[Array] = session.run(outputs, dict(feeds))
    except (runtime_errors.InvalidArgument, ValueError) as error:
        raise DatasetMismatch(f"The rows do not fit the model's inputs: {brief(error)}") from error
    except (runtime_errors.Fail, runtime_errors.RuntimeException, runtime_errors.NotImplemented) as error:
        raise UnsupportedOperator(f"onnxruntime cannot run the model: {brief(error)}") from error
    return results


def brief(error: Exception) -> str:
    """The first line of a runtime error, without its codes."""
    return str(error).partition("\n")[0].rpartition(" : ")[2][:500]
