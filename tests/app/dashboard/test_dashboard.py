import re

import httpx

from app.dashboard.endpoints import FOLDER


async def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "http" not in page.headers["content-security-policy"]
    for attribute in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert attribute.startswith("/")
        assert (await client.get(attribute)).status_code == 200, attribute
    assert "<style" not in page.text
    assert re.search(r"<script[^>]*>[^<]", page.text) is None
    assert re.search(r'\son\w+="', page.text) is None


async def test_assets_have_their_type_and_nothing_else_is_served(client: httpx.AsyncClient) -> None:
    for script in sorted(path.name for path in (FOLDER / "static").glob("*.js")):
        assert (await client.get(f"/dashboard/{script}")).headers["content-type"].startswith("text/javascript")
    assert (await client.get("/dashboard/dashboard.css")).headers["content-type"].startswith("text/css")
    for name in ("endpoints.py", "..%2fendpoints.py", "index.html"):
        assert (await client.get(f"/dashboard/{name}")).status_code in {404, 422}


def test_the_scripts_never_read_text_as_markup() -> None:
    script = "".join(path.read_text("utf-8") for path in (FOLDER / "static").glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
