"""``python -m workers.tasks`` as it is, but for the module that its children run."""

import functools

from tests.workers.submitter import PROGRAM_PATH
from workers import supervisor, tasks
from workers.workplace import Workplace

if __name__ == "__main__":
    supervisor.Workplace = functools.partial(Workplace, program="stand_in", program_path=PROGRAM_PATH)  # type: ignore[attr-defined]  # a worker of the service offers no such choice
    tasks.main()
