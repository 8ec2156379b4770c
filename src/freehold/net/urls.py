"""URLs and headers as they may leave the house: http(s) only, nothing smuggled in, nothing secret in a message.

Why one parser: a guard that reads a URL differently from the client that connects can be walked around. Both use
urllib3's. Userinfo never stays in a URL: it becomes a Basic header. It does not decide what may be reached (`guard.py`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

import urllib3

from freehold.errors import FreeholdError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")
_PORTS = {"http": 80, "https": 443}

#: Headers that belong to one origin and stay behind when a redirect leaves it.
SECRET_HEADERS = frozenset(
    {"authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "private-token", "x-auth-token"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL ready to be asked for: without userinfo and fragment; `host` in lower case, without brackets."""

    scheme: str
    host: str
    port: int
    path: str
    authorization: str | None = None

    @property
    def place(self) -> str:
        """host:port, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return (self.scheme, self.host, self.port)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def __str__(self) -> str:
        return redact(self.url)


def parse_url(text: str) -> Target:
    """FreeholdError net-url-invalid for another scheme than http(s), no host, a bad port, spaces or control characters."""
    shown = redact(text)
    if _FORBIDDEN.search(text):
        raise FreeholdError("net-url-invalid", f"a space or control character in the URL {shown}", url=shown)
    try:
        parts = urllib3.util.parse_url(text)
    except (urllib3.exceptions.LocationParseError, ValueError) as error:
        raise FreeholdError("net-url-invalid", f"not a URL: {shown}", url=shown) from error
    if parts.scheme not in _PORTS:
        raise FreeholdError("net-url-invalid", f"only http and https are spoken, not {shown}", url=shown)
    host = (parts.host or "").strip("[]").lower()
    if not host or "%" in host or parts.port == 0:
        raise FreeholdError("net-url-invalid", f"no usable host in the URL {shown}", url=shown)
    basic = None
    if parts.auth:
        basic = "Basic " + base64.b64encode(unquote(parts.auth).encode()).decode()
    return Target(parts.scheme, host, parts.port or _PORTS[parts.scheme], parts.request_uri or "/", basic)


def join(base: Target, location: str) -> Target:
    """Where a Location header leads, seen from `base`; FreeholdError net-url-invalid. Userinfo in it is dropped."""
    try:
        joined = urljoin(base.url, location)
    except ValueError as error:
        raise FreeholdError("net-url-invalid", f"{base} redirects to what is not a URL", url=str(base)) from error
    found = parse_url(joined)
    return Target(found.scheme, found.host, found.port, found.path)


def redact(url: str) -> str:
    """`url` fit for logs: no userinfo, no fragment, the values of its query hidden."""
    printable = _FORBIDDEN.sub("?", url)[:2000]
    try:
        parts = urlsplit(printable)
    except ValueError:
        return "<malformed URL>"
    if not parts.scheme or not parts.netloc:
        return printable.partition("?")[0].rpartition("@")[2]
    query = "&".join(f"{name}=***" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return (
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{'?' + query if query else '?***' if parts.query else ''}"
    )


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of `headers`; FreeholdError net-header-invalid if one could be read as more than one header."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise FreeholdError("net-header-invalid", f"not a header name: {name!r}", header=name)
        if any(c in value for c in "\r\n\0"):
            raise FreeholdError("net-header-invalid", f"a line break in the header '{name}'", header=name)
        try:
            value.encode("latin-1")
        except UnicodeEncodeError as error:
            raise FreeholdError("net-header-invalid", f"the header '{name}' holds what HTTP cannot carry", header=name) from error
    return dict(headers)


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """What may follow a redirect to another origin."""
    return {k: v for k, v in headers.items() if k.lower() not in SECRET_HEADERS}
