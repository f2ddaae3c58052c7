"""What keeps keyless access on this machine: other machines are shut out by the bind address, web pages by this."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from app.config import Settings
from app.errors import Forbidden


def is_loopback(host: str) -> bool:
    """Whether a bind address or a host name means this machine alone."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_local(headers: Mapping[str, str], settings: Settings) -> None:
    """Refuses requests that a browser sends on behalf of a page from elsewhere.

    A page can make its own name resolve to 127.0.0.1 (DNS rebinding), which the Host header gives away, or post a
    form across origins, which the Origin header gives away.

    Raises:
        Forbidden: Either header names something that is not this machine and not an allowed host.
    """
    if not _is_allowed(headers.get("host", ""), settings):
        raise Forbidden("Without API keys, requests are served under a loopback name only.", reason="host_not_allowed")
    origin = headers.get("origin")
    if origin is not None and not _is_allowed(urlsplit(origin).netloc, settings):
        raise Forbidden("Without API keys, no other web page may send requests.", reason="origin_not_allowed")


def _is_allowed(authority: str, settings: Settings) -> bool:
    name = urlsplit(f"//{authority}").hostname or ""
    return is_loopback(name) or name in settings.allowed_hosts
