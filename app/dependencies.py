"""What requests depend on: the process's services, a session, and who is calling."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.orm import Session

from app.broker import Broker
from app.config import Settings
from app.db import Database
from app.errors import Forbidden
from app.keys.service import Principal, authenticate
from app.local_access import check_local
from app.storage import Storage
from app.wakeups import Wakeups

T = TypeVar("T")

WRITERS = 8


def _write_slots() -> asyncio.Semaphore:
    return asyncio.Semaphore(WRITERS)


@dataclass(frozen=True)
class Services:
    """What the API process holds for its whole life."""

    settings: Settings
    database: Database
    broker: Broker
    storage: Storage
    wakeups: Wakeups
    write_slots: asyncio.Semaphore = field(default_factory=_write_slots)
    """Writers wait for SQLite's one write lock on a thread each. Without a bound well below the size of the thread
    pool they could take all of its threads, and the writer that holds the lock would wait for one to finish on."""

    async def in_transaction(self, work: Callable[[Session], T]) -> T:
        """Runs ``work`` in a transaction of its own, on a thread; for async code, which must not block."""

        def run() -> T:
            with self.database.transaction() as session:
                return work(session)

        async with self.write_slots:
            return await run_in_threadpool(run)

    async def reading(self, work: Callable[[Session], T]) -> T:
        """Runs ``work`` with a session for reads alone, on a thread."""

        def run() -> T:
            with self.database.reading() as session:
                return work(session)

        return await run_in_threadpool(run)


def services_of(request: Request) -> Services:
    """The services of the application that serves the request."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


async def _write_slot(services: ServicesDep) -> AsyncIterator[None]:
    async with services.write_slots:
        yield


def _write_session(
    services: ServicesDep, _: Annotated[None, Depends(_write_slot, scope="function")]
) -> Iterator[Session]:
    with services.database.transaction() as session:
        yield session


def _read_session(services: ServicesDep) -> Iterator[Session]:
    with services.database.reading() as session:
        yield session


# With the scope "function" the transaction ends before the response is sent: a client never sees a success whose
# commit failed, and no session is held while a response streams.
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]

PRINCIPAL_KEY = "pressroom.principal"
"""Where the request's scope keeps who is calling, once that is known."""

_bearer = HTTPBearer(auto_error=False, bearerFormat="prk_…", scheme_name="ApiKey", description="An API key.")


async def authenticate_request(request: Request, services: Services) -> Principal:
    """Who is calling; found out once per request.

    Raises:
        Unauthorized: There is no key, or none that opens anything.
        Forbidden: Keyless access under a name, or from a page, that is not of this machine.
    """
    known = request.scope.get(PRINCIPAL_KEY)
    if isinstance(known, Principal):
        return known
    scheme, secret = get_authorization_scheme_param(request.headers.get("authorization"))
    given = (secret if scheme.lower() == "bearer" else "") if scheme else None
    principal = await run_in_threadpool(authenticate, services.database, services.settings, given)
    if principal.key_id is None:
        check_local(request.headers, services.settings)
    request.scope[PRINCIPAL_KEY] = principal
    return principal


async def _principal(
    request: Request,
    services: ServicesDep,
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],  # puts the scheme into OpenAPI
) -> Principal:
    return await authenticate_request(request, services)


PrincipalDep = Annotated[Principal, Depends(_principal)]


def _requires(scope: str) -> Callable[[Principal], Principal]:
    def check(principal: PrincipalDep) -> Principal:
        if scope not in principal.scopes:
            raise Forbidden(f"This needs a key with the scope {scope}.", reason="missing_scope")
        return principal

    return check


Reader = Annotated[Principal, Depends(_requires("read"))]
Writer = Annotated[Principal, Depends(_requires("write"))]
Admin = Annotated[Principal, Depends(_requires("admin"))]
