"""A scripted HTTP server on loopback, for the tests of the way out."""

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Scripted:
    """`answers` by path; `seen` keeps (method, path, headers) of every request."""

    server: ThreadingHTTPServer
    scheme: str = "http"
    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.server.server_address[0])

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def place(self) -> str:
        return f"{self.address}:{self.port}"

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.address}:{self.port}{path}"

    @staticmethod
    def reply(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
        """An answer with its length; header names are given with _ for -."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name.replace("_", "-"), value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)

        return answer

    @staticmethod
    def in_turn(*answers: Answer) -> Answer:
        """The answers one after the other, the last one for ever."""
        left = list(answers)

        def answer(request: BaseHTTPRequestHandler) -> None:
            (left.pop(0) if len(left) > 1 else left[0])(request)

        return answer


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the stories here."""


def _serve(address: str, tls: ssl.SSLContext | None = None) -> Scripted:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            scripted.seen.append((self.command, self.path, dict(self.headers.items())))
            scripted.answers.get(self.path.partition("?")[0], scripted.reply(404))(self)

        do_GET = do_HEAD = do_POST = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, *args: Any) -> None:
            pass

    server = _Quiet((address, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scripted = Scripted(server, "https" if tls else "http")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return scripted


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    """Make servers: `serve()`, `serve("127.0.0.2")`, `serve(tls=context)`."""
    made: list[Scripted] = []

    def make(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Scripted:
        made.append(_serve(address, tls))
        return made[-1]

    yield make
    for scripted in made:
        scripted.server.shutdown()
        scripted.server.server_close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost and 127.0.0.1, with its key in the same file."""
    import shutil

    from freehold.procs.child import minimal_environment, run

    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    assert run([*make, *names, "-keyout", str(key), "-out", str(cert)], env=minimal_environment()).exit.ok
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    return both
