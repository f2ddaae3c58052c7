"""API keys: made, hashed, compared."""

import hashlib
import hmac
import re
import secrets
from typing import Literal, NamedTuple, get_args

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

IMPLIED: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}

_PUBLIC_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_KEY = re.compile(r"prk_(?P<public>[a-z0-9]{8})_(?P<secret>[A-Za-z0-9_-]{32,128})", re.ASCII)


class NewKey(NamedTuple):
    """A key as it is shown once, and what is kept of it."""

    secret: str
    public_id: str
    sha256: str


def generate_key() -> NewKey:
    """A key with 256 random bits behind its public part."""
    public_id = "".join(secrets.choice(_PUBLIC_ALPHABET) for _ in range(8))
    return describe_key(f"prk_{public_id}_{secrets.token_urlsafe(32)}")


def describe_key(secret: str) -> NewKey:
    """What is kept of a key.

    Raises:
        ValueError: It does not look like a key.
    """
    public_id = public_part(secret)
    if public_id is None:
        raise ValueError("An API key has the form prk_<8 lower-case letters or digits>_<32 or more characters>.")
    return NewKey(secret, public_id, hash_key(secret))


def public_part(secret: str) -> str | None:
    """The part of a key that is looked up, or None if this is no key."""
    found = _KEY.fullmatch(secret)
    return found["public"] if found else None


def hash_key(secret: str) -> str:
    """A plain hash is enough: the secret has 256 random bits, there is nothing to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, sha256: str) -> bool:
    """Whether the key has this hash, in time that does not depend on where they differ."""
    return hmac.compare_digest(hash_key(secret), sha256)


def effective_scopes(scopes: list[str]) -> frozenset[str]:
    """Scopes with those they imply: ``admin`` implies ``write`` implies ``read``."""
    return frozenset().union(*(IMPLIED.get(scope, frozenset()) for scope in scopes))
