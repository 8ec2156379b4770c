"""The synchronous way out, for pulls: guarded, patient, and honest about what went wrong.

Why not a plain client: it would resolve a name again after it was checked, follow a redirect into the private network,
carry a token along to another host, and report a lost network as one of a dozen exception types. Here each hop is
checked by the same rule (`guard.py`), connections go to the checked address, and every failure is one of this room's codes.

Answers are not judged: any status comes back to the caller. It does not resume: callers ask again with a Range header.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from freehold import __version__
from freehold.errors import FreeholdError
from freehold.net.guard import Guard
from freehold.net.urls import Target, check_headers, join, parse_url, redact, without_secrets

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 503})
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS"})
_HOPS = 10


@dataclass(frozen=True, slots=True)
class Hop:
    """One answer on the way to the last: a redirect that was followed. `url` is redacted."""

    status: int
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying: `attempts` in all; waits double from `first` to at most `longest` seconds, with jitter.

    A server's Retry-After is obeyed up to `longest`; one that asks for more gets no second attempt.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, asked: float | None) -> float | None:
        """Seconds before attempt number `attempt` + 1; None to give up."""
        if attempt >= self.attempts or (asked is not None and asked > self.longest):
            return None
        backoff: float = min(self.longest, self.first * 2 ** (attempt - 1)) * (0.5 + random.random() / 2)  # noqa: S311 - jitter
        return max(backoff, asked or 0.0)


class Response:
    """An answer whose body is still to be read. A context manager: leaving it lets the connection go."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, target: Target, history: tuple[Hop, ...], deadline: float | None) -> None:
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self.url = target.url
        self.history = history
        self._raw = raw
        self._target = target
        self._deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go: back to the pool if the body was read to its end, closed otherwise."""
        self._raw.close()
        self._raw.release_conn()

    def iter(self, chunk: int = 1 << 20) -> Iterator[bytes]:
        """The body in pieces of `chunk` bytes, the last one shorter.

        FreeholdError net-cut if it ends early, net-timeout, net-unreachable; what came before was yielded.
        """
        gathered = bytearray()
        with _translated(self._target):
            try:  # read1, since read and stream would lose the piece in which the body was cut
                while piece := self._raw.read1(chunk - len(gathered), decode_content=True):
                    gathered += piece
                    if len(gathered) >= chunk:
                        yield bytes(gathered)
                        gathered.clear()
                    self._check_deadline()
            except Exception:
                if gathered:
                    yield bytes(gathered)
                raise
        if gathered:
            yield bytes(gathered)

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise FreeholdError("net-timeout", f"{self._target} did not finish its answer in time", url=str(self._target))

    def read(self, limit: int) -> bytes:
        """The whole body; FreeholdError net-too-large if it holds more than `limit` bytes, and those of `iter`."""
        parts: list[bytes] = []
        size = 0
        for piece in self.iter(min(limit + 1, 1 << 20)):
            size += len(piece)
            if size > limit:
                raise FreeholdError(
                    "net-too-large", f"{self._target} sent more than {limit} bytes", url=str(self._target), limit=limit
                )
            parts.append(piece)
        return b"".join(parts)


class Egress:
    """The way out for any number of threads; close it at the end (or use it as a context manager).

    `guard` holds the rules and the record; `ca_file` replaces the system's certificate authorities; `sleep` is for tests.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        patience: Patience | None = None,
        timeout: float = 30.0,
        ca_file: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.guard = guard or Guard()
        self._patience = patience or Patience()
        self._timeout = timeout
        self._sleep = sleep
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None  # made when needed: reading the system's authorities takes 30 ms
        self._lock = threading.Lock()
        self._pools: dict[tuple[str | None, frozenset[str]], urllib3.PoolManager] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; open answers keep theirs."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        trusted_hosts: frozenset[str] = frozenset(),
        timeout: float | None = None,
        deadline: float | None = None,
        body: bytes | None = None,
        redirects: bool = True,
    ) -> Response:
        """Ask, following redirects (or not) and waiting out a busy server; the last answer, whatever its status.

        `timeout` (default: the client's own) bounds connecting (at most 10 s of it) and each wait for bytes; `deadline` the
        whole exchange, in seconds. `trusted_hosts` are trusted for this call besides the guard's. Authorization and its
        like stay behind when a redirect leaves the origin.

        FreeholdError net-url-invalid, net-header-invalid, net-address-refused, net-local-only, net-unreachable, net-tls,
        net-timeout, net-cut, net-redirect-refused.
        """
        target = parse_url(url)
        sent = {"User-Agent": f"freehold/{__version__}", "Accept-Encoding": "identity"}
        sent |= check_headers(headers or {})
        if target.authorization and not any(k.lower() == "authorization" for k in sent):
            sent["Authorization"] = target.authorization
        end = None if deadline is None else time.monotonic() + deadline
        history: list[Hop] = []
        while True:
            raw = self._ask_patiently(method, target, sent, trusted_hosts, self._timeout if timeout is None else timeout, body)
            location = raw.headers.get("Location")
            if not redirects or raw.status not in _REDIRECTS or location is None:
                return Response(raw, target, tuple(history), end)
            history.append(Hop(raw.status, str(target), raw.headers))
            raw.close()
            raw.release_conn()
            try:
                following = _follow(target, location, history)
            except UnicodeError as error:
                raise FreeholdError(
                    "net-redirect-refused", f"{target} redirects to what is not a URL", url=str(target)
                ) from error
            if following.origin != target.origin:
                sent = without_secrets(sent)
            if raw.status == 303 or (raw.status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
            target = following

    def _ask_patiently(
        self, method: str, target: Target, headers: Mapping[str, str], trusted: frozenset[str], timeout: float, body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        attempt = 0
        while True:
            attempt += 1
            try:
                raw = self._ask(method, target, headers, trusted, timeout, body)
            except FreeholdError as error:
                fleeting = error.code in ("net-unreachable", "net-timeout", "net-cut") and method in _IDEMPOTENT
                wait = self._patience.wait(attempt, None) if fleeting else None
                if wait is None:
                    raise
            else:
                busy = raw.status in _BUSY or (raw.status in (502, 504) and method in _IDEMPOTENT)
                wait = self._patience.wait(attempt, retry_after(raw.headers.get("Retry-After"))) if busy else None
                if wait is None:
                    return raw
                raw.close()
                raw.release_conn()
            self._sleep(wait)

    def _ask(
        self, method: str, target: Target, headers: Mapping[str, str], trusted: frozenset[str], timeout: float, body: bytes | None
    ) -> urllib3.BaseHTTPResponse:
        proxy = self.guard.proxy(target)
        self.guard.check(target, trusted)
        with _translated(target):
            raw = self._pool(proxy, trusted).urlopen(
                method,
                target.url,
                body=body,
                headers=dict(headers),
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=min(timeout, 10.0), read=timeout),
                preload_content=False,
            )
        if proxy is not None:
            self.guard.reached(target.host, target.port, f"proxy {redact(proxy)}")
        return raw

    def _pool(self, proxy: str | None, trusted: frozenset[str]) -> urllib3.PoolManager:
        """Connections are shared only among calls that trust the same hosts: one was checked when it was made."""
        with self._lock:
            if (proxy, trusted) not in self._pools:
                self._pools[proxy, trusted] = self._make_pool(proxy, trusted)
            return self._pools[proxy, trusted]

    def _make_pool(self, proxy: str | None, trusted: frozenset[str]) -> urllib3.PoolManager:
        self._tls = self._tls or ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        if proxy is None:
            pool = urllib3.PoolManager(num_pools=16, maxsize=8, ssl_context=self._tls)
            pool.pool_classes_by_scheme = _guarded_pools(self.guard, trusted)
            return pool
        way = parse_url(proxy)
        login = {"proxy-authorization": way.authorization} if way.authorization else None
        return urllib3.ProxyManager(way.url, proxy_headers=login, num_pools=16, maxsize=8, ssl_context=self._tls)


def _follow(target: Target, location: str, history: list[Hop]) -> Target:
    """Where the redirect leads; FreeholdError net-redirect-refused for a downgrade to http or too many hops."""
    try:
        # http.client reads headers as Latin-1; what a server sends there is in practice UTF-8.
        following = join(target, location.encode("latin-1").decode("utf-8"))
    except FreeholdError as error:
        raise FreeholdError("net-redirect-refused", f"{target} redirects to {error.message}", url=str(target)) from error
    if target.scheme == "https" and following.scheme == "http":
        raise FreeholdError("net-redirect-refused", f"{target} redirects from https to http ({following})", url=str(target))
    if len(history) > _HOPS:
        raise FreeholdError("net-redirect-refused", f"{target}: more than {_HOPS} redirects", url=str(target))
    return following


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number or a date); None if there is none or it is malformed."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _guarded_pools(guard: Guard, trusted: frozenset[str]) -> dict[str, type[HTTPConnectionPool]]:
    """Pool classes whose connections go only where `guard` allows, to the very address that it checked."""

    def connect(connection: HTTPConnection) -> socket.socket:
        host = connection.host.strip("[]")
        try:
            found = guard.addresses(host, connection.port, trusted)
        except OSError as error:
            raise NameResolutionError(host, connection, error) from error  # type: ignore[arg-type]  # gaierror in practice
        failure: OSError | None = None
        for address in found:
            try:
                # A literal address: create_connection has nothing left to resolve.
                sock = socket.create_connection((address, connection.port), connection.timeout or None)
            except OSError as error:
                failure = error
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            guard.reached(host, connection.port, address)
            return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(connection, f"no answer from {host}") from failure
        raise NewConnectionError(connection, f"{failure}") from failure

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls: Any = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls: Any = Secure

    return {"http": PlainPool, "https": SecurePool}


@contextlib.contextmanager
def _translated(target: Target) -> Iterator[None]:
    """urllib3's and the system's exceptions as this room's codes. Messages name host and path, never a query or a token."""
    context = {"url": str(target), "host": target.host}
    try:
        yield
    except NewConnectionError as error:  # before the timeouts: urllib3 makes it one of them
        raise FreeholdError("net-unreachable", f"{target.host} cannot be reached: {_reason(error)}", **context) from error
    except (ConnectTimeoutError, ReadTimeoutError, TimeoutError) as error:
        raise FreeholdError("net-timeout", f"{target.host} did not answer in time", **context) from error
    except (SSLError, ssl.SSLError, ssl.CertificateError) as error:
        raise FreeholdError("net-tls", f"no safe connection to {target.host}: {_reason(error)}", **context) from error
    except ProxyError as error:
        raise FreeholdError(
            "net-unreachable", f"the proxy did not let {target.host} through: {_reason(error)}", **context
        ) from error
    except ProtocolError as error:
        raise FreeholdError("net-cut", f"{target.host} broke off its answer", **context) from error
    except (HTTPError, OSError) as error:
        raise FreeholdError("net-unreachable", f"talking to {target.host} failed: {_reason(error)}", **context) from error


def _reason(error: BaseException) -> str:
    """The innermost reason, which is the one a person understands; never the wrapping text, which may hold a URL."""
    inner: BaseException = error
    while (below := inner.__cause__ or next((a for a in inner.args if isinstance(a, BaseException)), None)) is not None:
        inner = below
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    if isinstance(inner, OSError):
        return inner.strerror or type(inner).__name__
    return type(inner).__name__
