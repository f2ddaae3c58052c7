"""Who may do what: authentication, and the life of API keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from app.config import Settings
from app.db import Database, utc_now
from app.errors import NotFound, Unauthorized
from app.keys import repository
from app.keys.records import DEFAULT_PROJECT, KeyRecord
from app.local_access import is_loopback
from app.security import SCOPES, NewKey, Scope, describe_key, effective_scopes, generate_key, matches, public_part

# Compared against when no key has the public part, so that both answers take the same time.
_NO_KEY = generate_key()


class Exposed(Exception):
    """The API would be open to other machines without a key."""


@dataclass(frozen=True)
class Principal:
    """Who is calling: a key, or anyone at all in keyless mode."""

    project_id: str
    project: str
    scopes: frozenset[str]
    key_id: str | None


def is_keyless(session: Session, settings: Settings) -> bool:
    """Whether requests without a key act as admin of the default project."""
    return is_loopback(settings.host) and not settings.require_keys and not repository.any_key(session)


def authenticate(database: Database, settings: Settings, secret: str | None) -> Principal:
    """Who presents ``secret``.

    Raises:
        Unauthorized: Nobody who may come in; the answer does not tell why.
    """
    now = utc_now()
    with database.reading() as session:
        if secret is None:
            return _anyone(session, settings)
        found = repository.by_public_id(session, public_part(secret) or _NO_KEY.public_id)
        if not matches(secret, found[0].sha256 if found else _NO_KEY.sha256) or found is None:
            raise Unauthorized
        key, project = found
        if not _is_live(key, now):
            raise Unauthorized
        stale = repository.needs_marking(key, now)
        principal = Principal(project.id, project.name, effective_scopes(key.scopes), key.id)
    if stale:
        with database.transaction() as session:
            repository.mark_used(session, key.id, now)
    return principal


def check_exposure(database: Database, settings: Settings) -> None:
    """Refuses to serve other machines without keys.

    Raises:
        Exposed: The bind address is not loopback and there is no key.
    """
    if is_loopback(settings.host):
        return
    with database.reading() as session:
        if not repository.any_key(session):
            raise Exposed(
                f"Refusing to listen on {settings.host} without API keys: make one with `pressroom keys create`, "
                "set PRESSROOM_BOOTSTRAP_KEY, or listen on 127.0.0.1."
            )


def bootstrap(database: Database, settings: Settings) -> None:
    """Makes sure of the default project, and of the bootstrap key if one is set and there is no key at all."""
    with database.transaction() as session:
        project = repository.ensure_project(session)
        if settings.bootstrap_key is not None and not repository.any_key(session):
            described = describe_key(settings.bootstrap_key.get_secret_value())
            _add(session, described, project.id, name="bootstrap", scopes=["admin"], expires_at=None)


def known_scopes(scopes: Iterable[str]) -> list[Scope]:
    """The scopes among these words, from the least to the greatest."""
    return [scope for scope in SCOPES if scope in set(scopes)]


def create(
    session: Session, *, project: str, name: str, scopes: Sequence[Scope], expires_at: datetime | None
) -> tuple[KeyRecord, str]:
    """Makes a key, and its project if that is new.

    Returns:
        The record and the secret, which is known here and now only.
    """
    described = generate_key()
    owner = repository.ensure_project(session, project)
    record = _add(session, described, owner.id, name=name, scopes=known_scopes(scopes), expires_at=expires_at)
    return record, described.secret


def revoke(session: Session, key_id: str) -> None:
    """Ends a key.

    Raises:
        NotFound: There is none with that id.
    """
    repository.revoke(session, get(session, key_id))


def get(session: Session, key_id: str) -> KeyRecord:
    """The key.

    Raises:
        NotFound: There is none with that id.
    """
    key = repository.get(session, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id[:64]}.")
    return key


def _anyone(session: Session, settings: Settings) -> Principal:
    project = repository.project_by_name(session, DEFAULT_PROJECT)
    if project is None or not is_keyless(session, settings):
        raise Unauthorized
    return Principal(project.id, project.name, effective_scopes(["admin"]), None)


def _is_live(key: KeyRecord, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def _add(
    session: Session,
    described: NewKey,
    project_id: str,
    *,
    name: str,
    scopes: Sequence[Scope],
    expires_at: datetime | None,
) -> KeyRecord:
    record = KeyRecord(
        project_id=project_id,
        name=name,
        public_id=described.public_id,
        sha256=described.sha256,
        scopes=list(scopes),
        expires_at=expires_at,
    )
    session.add(record)
    session.flush()
    return record
