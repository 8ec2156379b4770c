"""The asynchronous way out, against real servers on loopback."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.net.async_http import AsyncHttp
from freehold.net.guard import Guard

Serve = Callable[..., Any]


async def _get(http: AsyncHttp, url: str, **options: Any) -> tuple[int, bytes]:
    async with http.request("GET", url, **options) as response:
        return response.status, await response.read(1 << 20)


async def _code(http: AsyncHttp, url: str, **options: Any) -> str:
    with pytest.raises(FreeholdError) as caught:
        await _get(http, url, **options)
    return caught.value.code


def test_names_and_literals_are_judged_by_the_same_rule_and_recorded(serve: Serve) -> None:
    server = serve()
    server.answers["/"] = server.reply(200, b"inside")
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def story() -> None:
        guard = Guard(resolve=resolve, proxies={})
        async with AsyncHttp(guard) as http:
            assert await _code(http, server.url()) == "net-address-refused"
            assert await _code(http, f"http://rebind.test:{server.port}/") == "net-address-refused"
            assert await _code(http, "http://169.254.169.254/") == "net-address-refused"
            assert await _code(http, "http://2130706433/") in ("net-address-refused", "net-unreachable", "net-url-invalid")
        assert server.seen == []
        async with AsyncHttp(guard, trusted=frozenset({server.place, f"named.test:{server.port}"})) as http:
            assert await _get(http, server.url()) == (200, b"inside")
            asked.clear()
            assert await _get(http, f"http://named.test:{server.port}/") == (200, b"inside")
            assert asked == ["named.test"], "one resolution, and the connection goes to what it gave"
        assert {d.place: d.connections for d in guard.destinations() if d.connections} == {
            server.place: 1,
            f"named.test:{server.port}": 1,
        }

    asyncio.run(story())


def test_local_only_lets_only_named_loopback_through(serve: Serve) -> None:
    server = serve()
    server.answers["/"] = server.reply(200, b"here")

    async def story() -> None:
        guard = Guard(local_only=True)
        async with AsyncHttp(guard, trusted=frozenset({server.place, "api.test"})) as http:
            assert await _get(http, server.url()) == (200, b"here")
            assert await _code(http, "https://api.test/v1") == "net-local-only"
        assert guard.refusals == 1

    asyncio.run(story())


def test_redirects_are_shown_and_not_followed(serve: Serve) -> None:
    server = serve()
    server.answers["/"] = server.reply(302, Location="http://169.254.169.254/")

    async def story() -> None:
        async with AsyncHttp(Guard({server.place}, proxies={})) as http:
            assert (await _get(http, server.url()))[0] == 302

    asyncio.run(story())


def test_every_way_of_failing_has_its_code(serve: Serve, authority: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority)
    server, safe = serve(), serve(tls=tls)
    safe.answers["/"] = safe.reply(200, b"safe")

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 400)
        request.close_connection = True

    def garbage(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"what?\r\n\r\n")
        request.close_connection = True

    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    server.answers |= {"/cut": cut, "/garbage": garbage, "/hang-up": hang_up, "/big": server.reply(200, b"x" * (1 << 21))}

    async def story() -> None:
        trusted = frozenset({server.place, safe.place, "127.0.0.1:9"})
        async with AsyncHttp(Guard(trusted, proxies={})) as http:
            assert await _code(http, server.url("/cut")) == "net-cut"
            assert await _code(http, server.url("/garbage")) == "net-cut"
            assert await _code(http, server.url("/hang-up")) == "net-cut"
            assert await _code(http, server.url("/big")) == "net-too-large"
            assert await _code(http, "http://127.0.0.1:9/") == "net-unreachable"
            assert await _code(http, safe.url()) == "net-tls"
            assert await _code(http, server.url(), headers={"X": "a\r\nb"}) == "net-header-invalid"
            assert await _code(http, "ftp://127.0.0.1/") == "net-url-invalid"
        async with AsyncHttp(Guard(trusted, proxies={}), ca_file=authority) as http:
            assert await _get(http, safe.url()) == (200, b"safe")

    asyncio.run(story())


def test_a_unix_socket_is_reached_and_a_silent_server_times_out(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def story() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/silent" not in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(answer, path)
        async with server, AsyncHttp(Guard(local_only=True), unix_socket=path) as http:
            assert await _get(http, "http://engine/x") == (200, b"hi")
            assert await _code(http, "http://engine/silent", read_timeout=0.2) == "net-timeout"
        async with AsyncHttp(Guard(), unix_socket=tmp_path / "absent") as http:
            assert await _code(http, "http://engine/x") == "net-unreachable"

    asyncio.run(story())


def test_leaving_early_closes_the_connection_so_that_the_server_notices(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def story() -> None:
        gone = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(OSError):
                while not reader.at_eof() and not writer.is_closing():
                    writer.write(b"1\r\nx\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.005)
                    if reader._eof:  # type: ignore[attr-defined]
                        break
            gone.set()
            writer.close()

        server = await asyncio.start_unix_server(stream, path)
        async with server, AsyncHttp(Guard(), unix_socket=path) as http:
            async with http.request("GET", "http://engine/") as response, contextlib.aclosing(response.iter()) as pieces:
                assert await anext(pieces)
            await asyncio.wait_for(gone.wait(), 5)

    asyncio.run(story())


def test_a_kept_connection_that_was_closed_over_there_is_replaced_but_a_new_one_that_breaks_is_not_tried_again() -> None:
    async def story() -> None:
        bodies: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                bodies.append(await reader.readexactly(1))
                if bodies[-1] != b"x":
                    # Says nothing of closing, and closes.
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, AsyncHttp(Guard({place}, proxies={})) as http:
            for _ in range(20):
                async with http.request("POST", f"http://{place}/", body=b"a") as response:
                    assert await response.read(10) == b"hi"
            assert bodies == [b"a"] * 20, "no request was sent twice"
            with pytest.raises(FreeholdError) as caught:
                async with http.request("POST", f"http://{place}/", body=b"x"):
                    pass
            assert caught.value.code == "net-cut"
            assert bodies.count(b"x") == 1

    asyncio.run(story())


def test_a_client_that_is_closed_while_an_answer_is_read_cuts_it(tmp_path: Path) -> None:
    async def story() -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            await reader.read()
            writer.close()

        server = await asyncio.start_unix_server(trickle, tmp_path / "s")
        http = AsyncHttp(Guard(), unix_socket=tmp_path / "s")
        async with server:
            async with http.request("GET", "http://engine/") as response:
                pieces = response.iter()
                assert await anext(pieces) == b"abc"
                await http.close()
                with pytest.raises(FreeholdError) as caught:
                    await anext(pieces)
                assert caught.value.code == "net-cut"
            await asyncio.sleep(0.02)

    asyncio.run(story())
