"""What makes two requests the same."""

import hashlib
import json
from collections.abc import Mapping

from starlette.types import Scope

UPLOAD_FINGERPRINT_KEY = "pressroom.upload_fingerprint"
"""Where the request's scope keeps the fingerprint of a multipart body once it has been read."""


def request_fingerprint(scope: Scope, key_id: str | None, body: str) -> str:
    """Of the whole request, given who sent it and the fingerprint of its body.

    The sender counts, for what one API key may see in a replay another one of the same project may not.
    """
    parts = [key_id, scope["method"], scope["path"], scope["query_string"].decode("latin-1"), body]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def body_fingerprint(body: bytes) -> str:
    """Of a body held in memory."""
    return hashlib.sha256(body).hexdigest()


def upload_fingerprint(fields: Mapping[str, str], file_sha256: str) -> str:
    """Of a multipart body: its parts count, not the boundary, which every client draws anew for a retry."""
    return hashlib.sha256(json.dumps([sorted(fields.items()), file_sha256]).encode()).hexdigest()
