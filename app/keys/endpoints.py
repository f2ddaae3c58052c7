"""``/v1/keys``: for administrators."""

from fastapi import APIRouter, Request, Response

from app.dependencies import Admin, ReadSession, WriteSession
from app.errors import problem_responses
from app.keys import repository, service
from app.keys.records import KeyRecord
from app.keys.schemas import KeyCreate, KeyCreated, KeyRead
from app.pagination import ListPage, Paging, list_page, split_page
from workers.compression.specs.errors import Code

router = APIRouter(prefix="/v1/keys", tags=["keys"])


def _read(key: KeyRecord, project: str) -> KeyRead:
    return KeyRead(
        id=key.id,
        name=key.name,
        project=project,
        scopes=service.known_scopes(key.scopes),
        prefix=f"prk_{key.public_id}",
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


@router.post("", status_code=201, responses=problem_responses(Code.INVALID_SPEC))
def create_key(body: KeyCreate, session: WriteSession, _: Admin, request: Request, response: Response) -> KeyCreated:
    """Makes a key. The secret is in this answer and nowhere else."""
    key, secret = service.create(
        session, project=body.project, name=body.name, scopes=body.scopes, expires_at=body.expires_at
    )
    shown = _read(key, body.project)
    # A replay of this answer shows the key without its secret.
    request.state.idempotent_body = shown.model_dump_json()
    response.headers["Location"] = f"/v1/keys/{key.id}"
    response.headers["Cache-Control"] = "no-store"
    return KeyCreated(**shown.model_dump(), secret=secret)


@router.get("")
def list_keys(session: ReadSession, _: Admin, paging: Paging) -> ListPage[KeyRead]:
    """Keys of all projects, revoked ones included."""
    keys, has_more = split_page(repository.list_page(session, paging), paging)
    projects = repository.project_names(session, {key.project_id for key in keys})
    return list_page([_read(key, projects[key.project_id]) for key in keys], has_more=has_more)


@router.get("/{key_id}", responses=problem_responses(Code.NOT_FOUND))
def get_key(key_id: str, session: ReadSession, _: Admin) -> KeyRead:
    """One key."""
    key = service.get(session, key_id)
    return _read(key, repository.project_names(session, {key.project_id})[key.project_id])


@router.delete("/{key_id}", status_code=204, responses=problem_responses(Code.NOT_FOUND))
def revoke_key(key_id: str, session: WriteSession, _: Admin) -> None:
    """Revokes a key at once; it stays listed."""
    service.revoke(session, key_id)
