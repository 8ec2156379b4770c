"""The synchronous way out, against real servers on loopback."""

import contextlib
import email.utils
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import FreeholdError
from freehold.net.egress import Egress, Patience, retry_after
from freehold.net.guard import Guard

Serve = Callable[..., Any]


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def egress(slept: list[float]) -> Iterator[Egress]:
    with Egress(Guard(proxies={}), sleep=slept.append) as made:
        yield made


def _get(egress: Egress, server: Any, path: str = "/", **options: Any) -> tuple[int, bytes]:
    with egress.open("GET", server.url(path), trusted_hosts=frozenset({server.place}), **options) as response:
        return response.status, response.read(1 << 24)


def _code(caught: pytest.ExceptionInfo[FreeholdError]) -> str:
    return caught.value.code


def test_a_body_comes_back_in_pieces_and_the_destination_is_recorded(egress: Egress, serve: Serve) -> None:
    server = serve()
    server.answers["/big"] = server.reply(200, b"x" * 300_000, ETag='"abc"')
    with egress.open(
        "GET", server.url("/big"), headers={"Range": "bytes=0-"}, trusted_hosts=frozenset({server.place})
    ) as response:
        assert (response.status, response.headers["etag"]) == (200, '"abc"')
        pieces = list(response.iter(65_536))
    assert (sum(map(len, pieces)), len(pieces) >= 4) == (300_000, True)
    assert _get(egress, server, "/missing")[0] == 404
    (place,) = egress.guard.destinations()
    assert (place.place, place.connections, place.addresses) == (server.place, 1, {"127.0.0.1"}), "one connection was reused"
    assert server.seen[0][2]["Range"] == "bytes=0-"


def test_loopback_is_refused_unless_the_operator_named_that_port(egress: Egress, serve: Serve) -> None:
    server = serve()
    server.answers["/"] = server.reply(200, b"inside")
    for trusted in (frozenset[str](), frozenset({"127.0.0.1:1"})):
        with pytest.raises(FreeholdError) as caught:
            egress.open("GET", server.url(), trusted_hosts=trusted)
        assert _code(caught) == "net-address-refused"
    assert _get(egress, server) == (200, b"inside")
    with pytest.raises(FreeholdError):
        egress.open("GET", server.url())
    assert len(server.seen) == 1, "a connection kept by a call that trusted the host must not serve one that does not"


@pytest.mark.parametrize(
    "where", ["http://169.254.169.254/latest/meta-data/", "http://[::1]:80/", "http://10.0.0.1/", "other-port"]
)
def test_a_redirect_into_the_private_network_is_refused(egress: Egress, serve: Serve, where: str) -> None:
    server, inner = serve(), serve()
    inner.answers["/"] = inner.reply(200, b"secret")
    server.answers["/"] = server.reply(302, Location=inner.url("/") if where == "other-port" else where)
    with pytest.raises(FreeholdError) as caught:
        _get(egress, server)
    assert _code(caught) == "net-address-refused"
    assert inner.seen == []
    naive = urllib.request.urlopen if where == "other-port" else None
    if naive is not None:
        with naive(server.url()) as response:
            assert response.read() == b"secret", "control: a client without the guard does go there"


def test_the_connection_goes_to_the_address_that_was_checked_not_to_a_second_answer(serve: Serve) -> None:
    """DNS rebinding: the name answers with one address when checked and with another when asked again."""
    first = serve("127.0.0.1")
    second = _same_port(serve, first)
    first.answers["/"], second.answers["/"] = first.reply(200, b"checked"), second.reply(200, b"rebound")
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    place = f"rebind.test:{first.port}"
    with Egress(Guard({place}, resolve=resolve, proxies={})) as egress:
        with egress.open("GET", f"http://{place}/") as response:
            assert response.read(100) == b"checked"
        assert asked == ["rebind.test"]
    assert resolve("rebind.test", 0) == ["127.0.0.2"], "control: asking twice gives the other address"
    with urllib.request.urlopen(second.url()) as naive:
        assert naive.read() == b"rebound"


def _same_port(serve: Serve, first: Any) -> Any:
    """A second server on 127.0.0.2 and the port of the first."""
    second = serve("127.0.0.2")
    second.server.socket.close()
    second.server.socket = socket.create_server(("127.0.0.2", first.port))
    second.server.server_address = second.server.socket.getsockname()
    return second


def test_a_name_that_turns_private_between_attempts_is_refused(serve: Serve) -> None:
    server = serve()
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return ["127.0.0.1"]

    with Egress(Guard(resolve=resolve, proxies={}), sleep=lambda _: None) as egress, pytest.raises(FreeholdError) as caught:
        egress.open("GET", f"http://rebind.test:{server.port}/")
    assert _code(caught) == "net-address-refused"
    assert (len(asked), server.seen) == (2, [])


def test_authorization_stays_behind_when_a_redirect_leaves_the_origin_and_goes_along_within_it(
    egress: Egress, serve: Serve
) -> None:
    server, other = serve(), serve()
    server.answers |= {
        "/a": server.reply(302, Location="/b", X_Repo_Commit="c0ffee"),
        "/b": server.reply(307, Location=other.url("/c")),
    }
    other.answers["/c"] = other.reply(200, b"done")
    headers = {"authorization": "Bearer hunter2", "Cookie": "a=b", "Range": "bytes=0-9"}
    both = frozenset({server.place, other.place})
    with egress.open("GET", server.url("/a"), headers=headers, trusted_hosts=both) as response:
        assert (response.read(10), response.url) == (b"done", other.url("/c"))
        assert [(hop.status, hop.headers.get("x-repo-commit")) for hop in response.history] == [(302, "c0ffee"), (307, None)]
    assert [seen[2].get("authorization") for seen in server.seen] == ["Bearer hunter2"] * 2
    arrived = {k.lower(): v for k, v in other.seen[0][2].items()}
    assert ("authorization" in arrived, "cookie" in arrived, arrived["range"]) == (False, False, "bytes=0-9")


def test_redirects_can_be_shown_instead_of_followed_and_do_not_go_in_circles(egress: Egress, serve: Serve) -> None:
    server = serve()
    server.answers |= {"/loop": server.reply(302, Location="/loop"), "/file": server.reply(302, Location="file:///etc/passwd")}
    assert _get(egress, server, "/loop", redirects=False)[0] == 302
    for path in ("/loop", "/file"):
        with pytest.raises(FreeholdError) as caught:
            _get(egress, server, path)
        assert _code(caught) == "net-redirect-refused"


def test_https_is_checked_and_never_left_for_http(serve: Serve, authority: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority)
    server, plain = serve(tls=tls), serve()
    server.answers |= {"/": server.reply(200, b"safe"), "/down": server.reply(302, Location=plain.url("/"))}
    trusted = frozenset({f"127.0.0.1:{server.port}", f"localhost:{server.port}", plain.place, f"wrong.test:{server.port}"})
    resolve = lambda host, port: ["127.0.0.1"]  # noqa: E731 - shorter than the function
    with Egress(Guard(trusted, resolve=resolve, proxies={}), ca_file=authority) as egress:
        with egress.open("GET", server.url("/", host="localhost")) as response:
            assert response.read(10) == b"safe"
        with pytest.raises(FreeholdError) as caught:
            egress.open("GET", server.url("/down"))
        assert _code(caught) == "net-redirect-refused"
        with pytest.raises(FreeholdError) as wrong_name:
            egress.open("GET", server.url("/", host="wrong.test"))
        assert _code(wrong_name) == "net-tls"
    with Egress(Guard(trusted, proxies={})) as stranger, pytest.raises(FreeholdError) as unknown:
        stranger.open("GET", server.url())
    assert _code(unknown) == "net-tls"
    assert "self-signed" in unknown.value.message
    assert plain.seen == []


def test_a_busy_server_is_waited_for_as_long_as_it_asks_within_reason(egress: Egress, serve: Serve, slept: list[float]) -> None:
    server = serve()
    server.answers["/busy"] = server.in_turn(server.reply(429, Retry_After="7"), server.reply(503), server.reply(200, b"now"))
    assert _get(egress, server, "/busy") == (200, b"now")
    assert slept[0] >= 7
    assert 0 < slept[1] <= 1
    slept.clear()
    server.answers["/never"] = server.reply(429, b"later", Retry_After="3600")
    assert _get(egress, server, "/never") == (429, b"later")
    assert slept == [], "who asks for an hour is not asked again"
    server.answers["/always"] = server.reply(503)
    assert _get(egress, server, "/always")[0] == 503
    assert len(slept) == 3, "four attempts in all"


def test_retry_after_reads_numbers_and_dates_and_nothing_else() -> None:
    assert retry_after("12") == 12
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 50 < (retry_after(in_a_minute) or 0) <= 61
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert [retry_after(v) for v in (None, "", "soon", "-1", "1e9")] == [None] * 5
    assert Patience(attempts=3, first=1, longest=8).wait(2, None) is not None
    assert Patience(attempts=3, first=1, longest=8).wait(3, None) is None


def test_a_post_is_not_repeated_when_the_line_breaks_but_a_get_is(egress: Egress, serve: Serve, slept: list[float]) -> None:
    server = serve()

    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_RDWR)

    server.answers["/"] = hang_up
    for method, requests in (("POST", 1), ("GET", 4)):
        server.seen.clear()
        with pytest.raises(FreeholdError) as caught:
            egress.open(method, server.url(), trusted_hosts=frozenset({server.place}), body=b"{}")
        assert (_code(caught), len(server.seen)) == ("net-cut", requests)


def test_a_body_that_is_cut_short_is_an_error_after_what_came(egress: Egress, serve: Serve) -> None:
    server = serve()

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"x" * 400)
        request.close_connection = True

    def cut_chunked(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"190\r\n" + b"x" * 400 + b"\r\n")
        request.close_connection = True

    server.answers |= {"/length": cut, "/chunked": cut_chunked}
    for path in server.answers:
        got: list[bytes] = []
        with egress.open("GET", server.url(path), trusted_hosts=frozenset({server.place})) as response:
            with pytest.raises(FreeholdError) as caught:
                got.extend(response.iter(100))
            assert _code(caught) == "net-cut"
            assert b"".join(got) == b"x" * 400


def test_silence_a_trickle_and_a_flood_are_all_bounded(egress: Egress, serve: Serve) -> None:
    server = serve()
    ended = threading.Event()

    def silent(request: BaseHTTPRequestHandler) -> None:
        ended.wait(5)
        request.close_connection = True

    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        while not ended.wait(0.02):
            request.wfile.write(b".")
            request.wfile.flush()

    server.answers |= {"/silent": silent, "/trickle": trickle, "/flood": server.reply(200, b"x" * 5000)}
    trusted = frozenset({server.place})
    try:
        with pytest.raises(FreeholdError) as caught:
            egress.open("POST", server.url("/silent"), trusted_hosts=trusted, timeout=0.2)
        assert _code(caught) == "net-timeout"
        with egress.open("GET", server.url("/trickle"), trusted_hosts=trusted, timeout=5, deadline=0.3) as response:
            with pytest.raises(FreeholdError) as slow:
                list(response.iter(1))
            assert _code(slow) == "net-timeout"
        with egress.open("GET", server.url("/flood"), trusted_hosts=trusted) as response, pytest.raises(FreeholdError) as flood:
            response.read(4999)
        assert _code(flood) == "net-too-large"
    finally:
        ended.set()


def test_nobody_listening_and_an_unknown_name_are_unreachable(slept: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]

    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with Egress(Guard({f"127.0.0.1:{port}"}, resolve=resolve, proxies={}), sleep=slept.append) as egress:
        for url in (f"http://127.0.0.1:{port}/", "http://nowhere.test/?token=hunter2"):
            with pytest.raises(FreeholdError) as caught:
                egress.open("GET", url)
            assert _code(caught) == "net-unreachable"
            assert "hunter2" not in str(caught.value.as_dict())
    assert len(slept) == 6


def test_local_only_lets_nothing_out_and_counts_what_tried() -> None:
    resolved: list[str] = []
    guard = Guard({"hub.test"}, local_only=True, resolve=lambda host, port: resolved.append(host) or ["1.1.1.1"])
    with Egress(guard) as egress:
        for url in ("https://hub.test/api", "http://1.1.1.1/"):
            with pytest.raises(FreeholdError) as caught:
                egress.open("GET", url)
            assert _code(caught) == "net-local-only"
    assert (guard.refusals, resolved) == (2, [])


def test_a_proxy_is_used_for_names_it_can_resolve_and_gets_its_login_but_no_private_address(serve: Serve) -> None:
    proxy = serve()
    proxy.answers["http://public.test/file"] = proxy.reply(200, b"through")
    guard = Guard(proxies={"http": f"http://user:pw@{proxy.place}"})
    with Egress(guard) as egress:
        with egress.open("GET", "http://public.test/file") as response:
            assert response.read(100) == b"through"
        with pytest.raises(FreeholdError) as caught:
            egress.open("GET", "http://169.254.169.254/latest")
        assert _code(caught) == "net-address-refused"
    ((method, path, headers),) = proxy.seen
    assert (method, path) == ("GET", "http://public.test/file")
    assert {k.lower(): v for k, v in headers.items()}["proxy-authorization"] == "Basic dXNlcjpwdw=="
    assert {d.place for d in guard.destinations()} == {"public.test:80", "169.254.169.254:80"}
    assert "pw" not in str(guard.destinations())


def test_an_answer_nobody_reads_lets_its_connection_go(egress: Egress, serve: Serve) -> None:
    server = serve()
    server.answers["/"] = server.reply(200, b"x" * 1_000_000)
    for _ in range(3):
        with (
            egress.open("GET", server.url(), trusted_hosts=frozenset({server.place})) as response,
            contextlib.suppress(StopIteration),
        ):
            next(response.iter(1000))
    assert len(server.seen) == 3
