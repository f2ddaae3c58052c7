"""The API process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app import error_handlers, logs
from app.artifacts.endpoints import router as artifacts_router
from app.broker import Broker
from app.comparisons.endpoints import router as comparisons_router
from app.config import Settings, get_settings
from app.dashboard.endpoints import router as dashboard_router
from app.datasets.endpoints import router as datasets_router
from app.db import Database
from app.dependencies import Services
from app.health.endpoints import router as health_router
from app.idempotency.middleware import Idempotency
from app.jobs.endpoints import router as jobs_router
from app.keys.endpoints import router as keys_router
from app.keys.service import bootstrap, check_exposure
from app.models.endpoints import router as models_router
from app.openapi import DESCRIPTION, describe
from app.request_bodies import BodyLimit
from app.request_scope import RequestScope
from app.storage import Storage
from app.techniques.endpoints import router as techniques_router
from app.wakeups import Wakeups
from app.workers_registry.endpoints import router as workers_router

ROUTERS = (
    models_router,
    datasets_router,
    jobs_router,
    artifacts_router,
    comparisons_router,
    techniques_router,
    workers_router,
    keys_router,
    health_router,
    dashboard_router,
)
UPLOAD_PATHS = frozenset({"/v1/models", "/v1/datasets"})


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; its services live as long as its lifespan."""
    settings = settings or get_settings()
    logs.configure(settings.log_format)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Pressroom",
        version=version("pressroom"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    for router in ROUTERS:
        app.include_router(router)
    error_handlers.install(app)
    describe(app)
    # The last one added is the outermost.
    app.add_middleware(Idempotency, upload_paths=UPLOAD_PATHS)
    app.add_middleware(
        BodyLimit,
        limit=settings.max_body_bytes,
        idle_seconds=settings.upload_idle_seconds,
        upload_paths=UPLOAD_PATHS,
    )
    app.add_middleware(RequestScope)
    return app


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Opens what the process holds for its whole life, and closes it again.

    Raises:
        Exposed: The API would be open to other machines without a key.
    """
    settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    broker = Broker(settings.broker_url)
    database = Database(settings.sql_url, broker)
    wakeups = Wakeups(broker.redis_url)
    try:
        bootstrap(database, settings)
        check_exposure(database, settings)
        storage = Storage(settings.blob_url, settings.storage_options, settings.scratch_dir)
        await wakeups.start()
        yield Services(settings, database, broker, storage, wakeups)
    finally:
        await wakeups.stop()
        database.close()
        broker.close()
