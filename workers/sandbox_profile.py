"""What a sandboxed child may use; handed to it by its parent."""

import dataclasses
import json
from dataclasses import dataclass

ENGINE = "workers.compression"


@dataclass(frozen=True)
class Profile:
    """Limits of one child.

    Args:
        parent: Process id of the supervisor; a child whose parent is another one by now ends itself.
        scratch: The only folder it may write to, also its working directory.
        readable: Files and folders it may read besides the interpreter and the engine.
        memory_bytes: Address space.
        cpu_seconds: CPU time over all threads.
        file_bytes: Largest file it may write.
        required: Whether a missing Landlock or seccomp is fatal instead of skipped.
        program: The module to run once confined.
        program_path: Where that module lies, if not among the installed packages.
    """

    parent: int
    scratch: str
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    readable: tuple[str, ...] = ()
    required: bool = False
    program: str = ENGINE
    program_path: str | None = None

    def to_json(self) -> bytes:
        """For the child's standard input."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Profile":
        """What ``to_json`` wrote."""
        fields = json.loads(content)
        return cls(**{**fields, "readable": tuple(fields["readable"])})
