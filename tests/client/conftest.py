"""A real HTTP server that answers what a test scripts, broken connections included."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.client.client import Client

Answer = Callable[["Handler"], None]


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """Answers in the order they are used up, and the requests that used them."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def then(self, *answers: Answer) -> "Script":
        self.answers.extend(answers)
        return self


class Handler(BaseHTTPRequestHandler):
    script: Script
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.seen.append(Seen(self.command, self.path, headers, body))
        self.script.answers.pop(0)(self)

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the names http.server looks for

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def log_message(self, *_: object) -> None:
        """Silence."""


def answer(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    """A whole response."""

    def send(handler: Handler) -> None:
        handler.send_response(status)
        named = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
        for name, value in named.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def broken(status: int, body: bytes, announced: int, **headers: str) -> Answer:
    """A response that breaks off after ``body`` although ``announced`` bytes were promised."""

    def send(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(announced))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return send


def hang_up(handler: Handler) -> None:
    """No response at all."""
    handler.close_connection = True


@pytest.fixture
def script() -> Iterator[Script]:
    """The scripted server, running."""
    script = Script()
    bound = type("Bound", (Handler,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield script
        server.shutdown()
        thread.join()


@pytest.fixture
def client(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of it whose pauses between attempts take no time."""
    for module in ("connection", "jobs", "artifacts"):
        monkeypatch.setattr(f"app.client.{module}.time.sleep", lambda _seconds: None)
    with Client(script.url, retries=2) as client:
        yield client
