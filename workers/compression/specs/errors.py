"""Every way a request or a job can be turned down, named once.

``EngineError`` is the root of what the engine and the format checks raise. It knows no HTTP: it carries the stable
``code`` of the public contract, a finer ``reason``, the step it happened in and what to try next. ``app.errors``
translates it to problem+json; the child writes it into its result file.

    EngineError
    ├── UnsupportedFormat   a format that is never loaded
    ├── UnsafeModel         right format, but it could run code or reach outside itself
    ├── TooLarge            over a limit, or a bomb
    ├── InvalidModel · InvalidDataset · InvalidSpec
    ├── UnsupportedTechnique · UnsupportedOperator · IncompatibleSteps · DatasetMismatch
    └── NothingCompressed · ConstraintInfeasible · NumericalFailure · OutOfMemory · OutOfDisk · Timeout · Crashed · …
"""

from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """Stable machine words of the public contract; HTTP problems and failed jobs share them."""

    INVALID_REQUEST = "invalid_request"
    INVALID_SPEC = "invalid_spec"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    CONFLICT = "conflict"
    JOB_FINISHED = "job_finished"
    JOB_NOT_FINISHED = "job_not_finished"
    IN_USE = "in_use"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    REQUEST_TIMEOUT = "request_timeout"
    DIGEST_MISMATCH = "digest_mismatch"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"

    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSAFE_MODEL = "unsafe_model"
    TOO_LARGE = "too_large"
    INVALID_MODEL = "invalid_model"
    INVALID_DATASET = "invalid_dataset"
    DATASET_MISMATCH = "dataset_mismatch"
    UNSUPPORTED_TECHNIQUE = "unsupported_technique"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    INCOMPATIBLE_STEPS = "incompatible_steps"
    NOTHING_COMPRESSED = "nothing_compressed"
    CONSTRAINT_INFEASIBLE = "constraint_infeasible"
    OUT_OF_MEMORY = "out_of_memory"
    OUT_OF_DISK = "out_of_disk"
    TIMEOUT = "timeout"
    WORKER_LOST = "worker_lost"
    CRASHED = "crashed"
    SANDBOX_VIOLATION = "sandbox_violation"
    INVALID_RESULT = "invalid_result"
    NUMERICAL_FAILURE = "numerical_failure"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    INTERNAL = "internal"


class EngineError(Exception):
    """A refusal or failure with a stable code.

    Args:
        detail: One or two sentences for the user: what is wrong, naming the thing; no path of this machine.
        reason: Finer machine word, such as ``onnx_external_data``.
        hint: What the user can try.
        step: The pipeline step it happened in, such as ``recipe/0`` or ``measure``.
        pointer: JSON pointer to the field of the request, where one is to blame.
    """

    code: ClassVar[Code] = Code.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        reason: str | None = None,
        hint: str | None = None,
        step: str | None = None,
        pointer: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.hint = hint
        self.step = step
        self.pointer = pointer


class UnsupportedFormat(EngineError):
    """The bytes are of a format that is never loaded, or of none that is known."""

    code = Code.UNSUPPORTED_FORMAT


class UnsafeModel(EngineError):
    """The right format, but it could run code, hide something or reach outside itself."""

    code = Code.UNSAFE_MODEL


class TooLarge(EngineError):
    """Over a limit, or small on disk and huge once decoded."""

    code = Code.TOO_LARGE


class InvalidModel(EngineError):
    """The file is malformed or contradicts itself."""

    code = Code.INVALID_MODEL


class InvalidDataset(EngineError):
    """The dataset is malformed or contradicts itself."""

    code = Code.INVALID_DATASET


class InvalidSpec(EngineError):
    """The request is well-formed JSON but asks for something that makes no sense."""

    code = Code.INVALID_SPEC


class DatasetMismatch(EngineError):
    """The dataset does not fit the model's inputs or outputs."""

    code = Code.DATASET_MISMATCH


class UnsupportedTechnique(EngineError):
    """This model, data, target or version cannot be served by the technique; the detail names why."""

    code = Code.UNSUPPORTED_TECHNIQUE


class UnsupportedOperator(EngineError):
    """The model has an operator or layer that the technique or the runtime does not handle."""

    code = Code.UNSUPPORTED_OPERATOR


class IncompatibleSteps(EngineError):
    """The steps of a recipe exclude each other or stand in an order that undoes them."""

    code = Code.INCOMPATIBLE_STEPS


class NothingCompressed(EngineError):
    """The artifact is no smaller, has no other dtypes and no more sparsity than the original."""

    code = Code.NOTHING_COMPRESSED


class ConstraintInfeasible(EngineError):
    """No choice satisfies the constraint; the detail names what is reachable."""

    code = Code.CONSTRAINT_INFEASIBLE


class NumericalFailure(EngineError):
    """NaN or infinity where numbers were expected."""

    code = Code.NUMERICAL_FAILURE


class OutOfMemory(EngineError):
    """The memory limit of the sandbox or the machine was reached."""

    code = Code.OUT_OF_MEMORY


class OutOfDisk(EngineError):
    """A file or disk limit was reached."""

    code = Code.OUT_OF_DISK


class Timeout(EngineError):
    """A time limit was reached."""

    code = Code.TIMEOUT


class WorkerLost(EngineError):
    """The process doing the work was killed from outside."""

    code = Code.WORKER_LOST
    retryable = True


class Crashed(EngineError):
    """The child died of a fault of its own (segmentation fault, abort); never retried."""

    code = Code.CRASHED


class SandboxViolation(EngineError):
    """The child tried what the sandbox forbids."""

    code = Code.SANDBOX_VIOLATION


class InvalidResult(EngineError):
    """The child's result does not satisfy its contract."""

    code = Code.INVALID_RESULT


class StorageUnavailable(EngineError):
    """The blob store did not answer."""

    code = Code.STORAGE_UNAVAILABLE
    retryable = True
