"""How uploads look in OpenAPI: their bodies are streamed, so FastAPI cannot derive them."""

from typing import Any

from pydantic import BaseModel

from app.problems import problem_responses
from workers.compression.specs.errors import Code

UPLOAD_REFUSALS = problem_responses(
    Code.INVALID_REQUEST,
    Code.REQUEST_TIMEOUT,
    Code.TOO_LARGE,
    Code.UNSUPPORTED_FORMAT,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.INVALID_SPEC,
    Code.DIGEST_MISMATCH,
    Code.UNSAFE_MODEL,
)

DIGEST_HEADER = {
    "name": "X-Content-SHA256",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
    "description": "The file's sha256; a file that arrives with another one is refused.",
}


def upload_operation(form: type[BaseModel], json_body: type[BaseModel] | None = None) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes a file, or JSON in its place."""
    fields = _schema(form)
    file = {"type": "string", "format": "binary", "description": "One file, or an archive of a directory."}
    schema = {**fields, "properties": {"file": file, **fields["properties"]}, "required": ["file"]}
    content: dict[str, Any] = {"multipart/form-data": {"schema": schema}}
    if json_body is not None:
        content["application/json"] = {"schema": _schema(json_body)}
    return {"requestBody": {"required": True, "content": content}, "parameters": [DIGEST_HEADER]}


def upload_responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """``responses`` of such a route."""
    return {
        200: {"model": model, "description": "The project has these bytes already; nothing new was made."},
        201: {"model": model, "description": "Inspected and ready."},
        202: {"model": model, "description": "Stored; the inspection is not through yet."},
        **UPLOAD_REFUSALS,
    }


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return _inlined(schema, definitions) if definitions else schema


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """Puts definitions where they are referred to: a request body has no place to define them."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name in definitions:
        return _inlined(definitions[name], definitions)
    return {key: _inlined(value, definitions) for key, value in node.items()}
