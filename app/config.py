"""Settings, all from the environment (``PRESSROOM_…``) with defaults for one machine."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything that can be configured; the README's table is generated from the descriptions."""

    model_config = SettingsConfigDict(env_prefix="PRESSROOM_", extra="ignore", frozen=True)

    data_dir: Path = Field(Path("pressroom-data"), description="Folder for SQLite, blobs, Redis and scratch.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; SQLite in the data folder if unset.")
    redis_url: str | None = Field(None, description="Broker URL; the embedded Redis in the data folder if unset.")
    storage_url: str | None = Field(None, description="Blob store URL (file, s3, gs, az); a folder if unset.")
    storage_options: dict[str, str] = Field(default_factory=dict, description="obstore options (JSON).")
    host: str = Field("127.0.0.1", description="Address the API binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API binds to.")
    require_keys: bool = Field(False, description="Refuse keyless access even on loopback.")
    bootstrap_key: SecretStr | None = Field(None, description="Admin API key created at start if no key exists.")
    allowed_hosts: tuple[str, ...] = Field((), description="Host headers accepted besides loopback names (JSON list).")

    max_upload_bytes: int = Field(20 << 30, ge=1, description="Largest upload.")
    max_body_bytes: int = Field(2 << 20, ge=1024, description="Largest JSON body.")
    upload_idle_seconds: float = Field(30.0, gt=0, description="An upload that sends nothing for so long is dropped.")
    inspection_wait_seconds: float = Field(10.0, ge=0, description="How long an upload waits for its inspection.")
    max_queued_jobs: int = Field(10_000, ge=1, description="Queued jobs per project before 429.")

    lease_seconds: float = Field(15.0, gt=0, description="A running job is taken over when its lease is this old.")
    heartbeat_seconds: float = Field(3.0, gt=0, description="How often a worker renews its leases.")
    sweep_seconds: float = Field(1.0, gt=0, description="Period of the sweeper.")
    checkpoint_seconds: float = Field(
        30.0,
        gt=0,
        le=1e9,
        description="How often training and quantization are written down, to go on from if the worker is lost.",
    )
    kill_grace_seconds: float = Field(3.0, ge=0, description="Between SIGTERM and SIGKILL of a child.")
    blob_grace_seconds: float = Field(3600.0, ge=0, description="An unreferenced blob lives at least this long.")
    idempotency_seconds: float = Field(86_400.0, gt=0, description="How long idempotency keys are kept.")

    capability: str = Field("cpu", pattern="^[a-z0-9_-]{1,32}$", description="Queue this worker serves.")
    worker_concurrency: int = Field(1, ge=1, le=64, description="Jobs at a time per worker process.")
    child_memory_bytes: int = Field(12 << 30, ge=256 << 20, description="Address space of a job's child.")
    child_file_bytes: int = Field(8 << 30, ge=1 << 20, description="Largest file a child may write.")
    child_threads: int = Field(1, ge=1, description="Threads per child.")
    inspection_memory_bytes: int = Field(6 << 30, ge=256 << 20, description="Address space of an inspection's child.")
    inspection_cpu_seconds: int = Field(60, ge=1, description="CPU time of an inspection.")
    sandbox_required: bool = Field(False, description="Refuse to start a worker without Landlock and seccomp.")
    price_per_hour: float = Field(0.0, ge=0, description="Price of an hour of this hardware.")
    log_format: str = Field("text", pattern="^(text|json)$", description="Log lines as text or JSON.")

    @property
    def sql_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'pressroom.db'}"

    @property
    def broker_url(self) -> str:
        """The broker URL in force; the embedded Redis listens on a unix socket in the data folder."""
        return self.redis_url or f"redis+socket://{self.data_dir.absolute() / 'redis.sock'}"

    @property
    def blob_url(self) -> str:
        """The blob store URL in force."""
        return self.storage_url or (self.data_dir.absolute() / "blobs").as_uri()

    @property
    def scratch_dir(self) -> Path:
        """Where uploads in flight and children's working directories lie."""
        return self.data_dir.absolute() / "scratch"


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
