"""The page at ``/``: what the service is doing. All figures come from the public API, fetched by the page itself."""

from importlib.metadata import version
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, select_autoescape

FOLDER = Path(__file__).parent
MEDIA_TYPES = {"dashboard.css": "text/css", "dashboard.js": "text/javascript", "curves.js": "text/javascript"}
HEADERS = {
    # Nothing from elsewhere, nothing inline, no frames: whatever a model's name may hold, it cannot run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)
_templates = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=select_autoescape())


@router.get("/", response_class=HTMLResponse)
def dashboard() -> HTMLResponse:
    """The page."""
    page = _templates.get_template("index.html").render(version=version("pressroom"))
    return HTMLResponse(page, headers=HEADERS)


@router.get("/dashboard/{name}")
def asset(name: Literal["dashboard.css", "dashboard.js", "curves.js"]) -> Response:
    """The page's style sheet and scripts."""
    content = (FOLDER / "static" / name).read_bytes()
    return Response(content, media_type=MEDIA_TYPES[name], headers=HEADERS)
