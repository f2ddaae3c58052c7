"""API keys as they are asked for and shown."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.security import Scope

ProjectName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$", examples=["search"])]


class KeyCreate(BaseModel):
    """A new key; a new project name makes the project."""

    model_config = ConfigDict(extra="forbid")

    project: ProjectName = "default"
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = ["read", "write"]
    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$", examples=["ci"])] = ""
    expires_at: AwareDatetime | None = None


class KeyRead(BaseModel):
    """A key without its secret."""

    id: str = Field(examples=["key_01JZ0000000000000000000000"])
    object: Literal["key"] = "key"
    name: str
    project: str
    scopes: list[Scope]
    prefix: str = Field(description="The public part of the key.", examples=["prk_a1b2c3d4"])
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyCreated(KeyRead):
    """A new key with its secret, which is shown this once."""

    secret: str = Field(examples=["prk_a1b2c3d4_…"])
