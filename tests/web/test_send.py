"""Files leave by the kernel where they can, by plain writes where they cannot, and never short of what was promised unseen."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.testing.server import running_server
from freehold.web.asgi import Answer
from freehold.web.send import EXTENSION, FilePiece, SendfileProtocol, send_pieces

SIZE = 20_000_003


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blob") / "blob"
    path.write_bytes(random.Random(7).randbytes(SIZE))  # noqa: S311 - a seed, not a secret
    return path


class App:
    """/whole, /part/{start}/{stop}, /mixed (file, bytes, file), /broken (fails half-way), /short (a file that ends early)."""

    def __init__(self, blob: Path) -> None:
        self.blob = blob
        self.kernel: list[int] = []
        self.extension: list[bool] = []
        self.open = 0
        self.decoded = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.extension.append(EXTENSION in scope.get("extensions", {}))

        async def counted(message: Any) -> None:
            if message["type"] == EXTENSION:
                self.kernel.append(message["count"])
            await send(message)

        with self.blob.open("rb", buffering=0) as file:
            self.open += 1
            try:
                pieces = self._pieces(scope["path"], file)
                length = SIZE if scope["path"] in ("/broken", "/endless") else sum(n for _, n in pieces)
                if scope["path"] == "/small":
                    await Answer(200, b"small", [(b"content-length", b"5")])(scope, receive, send)
                    return
                head = [(b"content-length", str(length).encode())]
                await send({"type": "http.response.start", "status": 200, "headers": head})
                await send_pieces(scope, receive, counted, [p for p, _ in pieces])
            finally:
                self.open -= 1

    def _pieces(self, path: str, file: Any) -> list[tuple[Any, int]]:
        match path.split("/")[1:]:
            case ["part", start, stop]:
                return [(FilePiece(file, int(start), int(stop) - int(start)), int(stop) - int(start))]
            case ["mixed"]:
                text = [b"between " * 1000, b"the files"]
                return [
                    (FilePiece(file, 5, 3_000_000), 3_000_000),
                    (iter(text), sum(map(len, text))),
                    (FilePiece(file, SIZE - 7, 7), 7),
                ]
            case ["broken"]:
                return [(self._failing(), SIZE)]
            case ["endless"]:
                return [(self._endless(), SIZE)]
            case ["short"]:
                return [(FilePiece(file, SIZE - 10, 1000), 1000)]
        return [(FilePiece(file, 0, SIZE), SIZE)]

    def _failing(self) -> Iterator[bytes]:
        yield b"x" * 1000
        raise OSError("a block does not match its hash")

    def _endless(self) -> Iterator[bytes]:
        for _ in range(SIZE // 1000):
            self.decoded += 1
            time.sleep(0.001)
            yield b"x" * 1000


@pytest.fixture(params=["kernel", "plain"])
def app_at(request: pytest.FixtureRequest, blob: Path) -> Iterator[tuple[App, str]]:
    app = App(blob)
    with running_server(app, http=SendfileProtocol if request.param == "kernel" else "h11") as url:
        yield app, url


@pytest.fixture
def kernel_app(blob: Path) -> Iterator[tuple[App, str]]:
    app = App(blob)
    with running_server(app, http=SendfileProtocol) as url:
        yield app, url


@pytest.fixture
def connect() -> Iterator[Callable[[str], http.client.HTTPConnection]]:
    """Connections that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def connected(url: str) -> http.client.HTTPConnection:
            return stack.enter_context(contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)))

        yield connected


Connect = Callable[[str], http.client.HTTPConnection]


def _all_closed(app: App) -> bool:
    """Whether every file that was opened for an answer is closed again, soon."""
    until = time.monotonic() + 10
    while app.open and time.monotonic() < until:
        time.sleep(0.01)
    return app.open == 0


def test_whole_parts_and_mixtures_arrive_byte_for_byte_on_one_connection(
    connect: Connect, app_at: tuple[App, str], blob: Path
) -> None:
    app, url = app_at
    data = blob.read_bytes()
    connection = connect(url)
    for path, expected in [
        ("/whole", data),
        ("/part/0/1", data[:1]),
        ("/part/777/9000777", data[777:9000777]),
        ("/mixed", data[5:3000005] + b"between " * 1000 + b"the files" + data[-7:]),
        ("/small", b"small"),
        (f"/part/{SIZE - 3}/{SIZE}", data[-3:]),
    ]:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(expected).digest(), path
    assert _all_closed(app)
    if app.extension[0]:
        assert SIZE in app.kernel, "the kernel's way was offered but not taken"
    else:
        assert app.kernel == [], "the fallback must not use an extension that the server lacks"


def test_head_sends_the_length_and_no_byte(connect: Connect, app_at: tuple[App, str]) -> None:
    app, url = app_at
    connection = connect(url)
    for _ in range(2):
        connection.request("HEAD", "/whole")
        answer = connection.getresponse()
        assert (answer.getheader("content-length"), answer.read()) == (str(SIZE), b"")
    assert app.kernel == []


def test_pipelined_requests_are_answered_in_order(app_at: tuple[App, str], blob: Path) -> None:
    _, url = app_at
    data = blob.read_bytes()
    host = urlsplit(url)
    asked = [(0, 100_000), (9_000_000, 18_000_000), (5, 6)]
    with socket.create_connection((host.hostname, host.port), timeout=20) as client:
        client.sendall(b"".join(b"GET /part/%d/%d HTTP/1.1\r\nHost: x\r\n\r\n" % pair for pair in asked))
        stream = client.makefile("rb")
        for start, stop in asked:
            assert stream.readline().startswith(b"HTTP/1.1 200")
            while stream.readline() != b"\r\n":
                pass
            assert stream.read(stop - start) == data[start:stop]


def test_a_client_that_leaves_frees_its_file_and_the_server_goes_on(
    connect: Connect, app_at: tuple[App, str], blob: Path
) -> None:
    app, url = app_at
    host = urlsplit(url)
    for path in (b"/whole", b"/endless"):
        client = socket.create_connection((host.hostname, host.port), timeout=20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000)
        client.close()
        assert _all_closed(app)
    assert app.decoded < SIZE // 1000, "decoding went on for nobody"
    connection = connect(url)
    connection.request("GET", "/part/3/5")
    assert connection.getresponse().read() == blob.read_bytes()[3:5]


def test_a_client_that_stops_reading_is_given_up_and_its_file_closed(
    kernel_app: tuple[App, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, url = kernel_app
    monkeypatch.setattr("freehold.web.send.STALL_SECONDS", 0.3)
    host = urlsplit(url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect((host.hostname, host.port))
    client.sendall(b"GET /whole HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(10)
    assert _all_closed(app)
    client.close()


@pytest.mark.parametrize("path", ["/broken", "/short"])
def test_a_failure_half_way_ends_the_connection_short_so_that_the_client_sees_it(
    connect: Connect, app_at: tuple[App, str], path: str
) -> None:
    _, url = app_at
    connection = connect(url)
    connection.request("GET", path)
    answer = connection.getresponse()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    connection.request("GET", "/small")
    assert connection.getresponse().read() == b"small"


def test_connection_close_and_http_1_0_are_honoured(kernel_app: tuple[App, str], blob: Path) -> None:
    _, url = kernel_app
    host = urlsplit(url)
    for request in (
        b"GET /part/0/300000 HTTP/1.0\r\n\r\n",
        b"GET /part/0/300000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        with socket.create_connection((host.hostname, host.port), timeout=20) as client:
            client.sendall(request)
            got = client.makefile("rb").read()
        assert got.partition(b"\r\n\r\n")[2] == blob.read_bytes()[:300000]


def test_under_tls_the_same_application_falls_back_to_plain_writes(blob: Path, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
             "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("not run: openssl is not installed")
    app = App(blob)
    with running_server(app, http=SendfileProtocol, ssl_keyfile=str(key), ssl_certfile=str(certificate)) as url:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        connection = http.client.HTTPSConnection(urlsplit(url).netloc, timeout=20, context=context)
        connection.request("GET", "/whole")
        assert hashlib.sha256(connection.getresponse().read()).digest() == hashlib.sha256(blob.read_bytes()).digest()
        connection.close()
    assert app.extension == [False]


def test_the_file_position_of_others_is_not_needed(connect: Connect, kernel_app: tuple[App, str], blob: Path) -> None:
    """Two transfers of one file at the same time do not disturb one another."""
    _, url = kernel_app
    one, two = connect(url), connect(url)
    one.request("GET", "/whole")
    two.request("GET", "/part/1000/19000000")
    first, second = one.getresponse(), two.getresponse()
    got = [bytearray(), bytearray()]
    for _ in range(400):
        got[0] += first.read(50_000)
        got[1] += second.read(50_000)
    got[0] += first.read()
    got[1] += second.read()
    assert got[0] == blob.read_bytes()
    assert got[1] == blob.read_bytes()[1000:19000000]


@pytest.mark.parametrize("http_class", [SendfileProtocol, "h11"])
def test_small_answers_do_not_wait_for_the_clients_acknowledgements(connect: Connect, blob: Path, http_class: Any) -> None:
    """Headers and body leave as two writes; with Nagle's algorithm on, each answer takes 40 ms, as the control shows."""
    with running_server(App(blob), http=http_class, nodelay=False) as url:
        connection = connect(url)
        took = []
        for _ in range(15):
            began = time.monotonic()
            connection.request("GET", "/small")
            connection.getresponse().read()
            took.append(time.monotonic() - began)
        connection.close()
    assert (sorted(took)[7] < 0.035) is (http_class is SendfileProtocol), took


@pytest.mark.parametrize(
    "said", [b"", b"GET /small HTT", b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /small HTTP/1.1\r\nHost: x\r\n\r\nGET /"]
)
def test_a_connection_that_does_not_go_on_is_closed(blob: Path, said: bytes) -> None:
    """Nothing said, half a request, an answered one: none is held for ever."""
    with running_server(App(blob), http=SendfileProtocol, timeout_keep_alive=1) as url:
        host = urlsplit(url)
        with socket.create_connection((host.hostname, host.port), timeout=5) as client:
            began = time.monotonic()
            client.sendall(said)
            while client.recv(1000):
                pass
            assert 0.5 < time.monotonic() - began < 4


def test_a_long_answer_is_not_cut_off_by_that(connect: Connect, blob: Path) -> None:
    with running_server(App(blob), http=SendfileProtocol, timeout_keep_alive=1) as url:
        connection = connect(url)
        connection.request("GET", "/whole")
        answer = connection.getresponse()
        got = answer.read(1000)
        time.sleep(1.5)
        got += answer.read()
        assert got == blob.read_bytes()
        connection.close()
