"""Field types that several resources share."""

from typing import Annotated

from pydantic import StringConstraints

ShownName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
