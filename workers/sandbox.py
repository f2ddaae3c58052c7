"""The sandboxed child: ``python -P -m workers.sandbox``, a profile on standard input, confined before anything else.

Nothing heavy is imported and nothing of the job is read before ``confine`` has returned. What runs then is the module
that the profile names, with the scratch folder as its working directory.
"""

import os
import runpy
import sys

from workers.confinement import Unconfined, confine
from workers.sandbox_profile import Profile

UNCONFINED_EXIT = 70


def main() -> None:
    """Confines this process, then becomes the profile's program."""
    profile = Profile.from_json(sys.stdin.buffer.read())
    _close_standard_input()
    try:
        confine(profile)
    except (Unconfined, OSError) as error:
        sys.stderr.write(f"the sandbox could not be set up: {error}\n")
        raise SystemExit(UNCONFINED_EXIT) from error
    sys.argv = [profile.program]
    if profile.program_path is not None:
        sys.path.insert(0, profile.program_path)
    runpy.run_module(profile.program, run_name="__main__", alter_sys=True)


def _close_standard_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


if __name__ == "__main__":
    main()
