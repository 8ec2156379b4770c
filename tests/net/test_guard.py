"""What may be reached."""

import ipaddress

import pytest

from freehold.errors import FreeholdError
from freehold.net.guard import Guard, is_public
from freehold.net.urls import parse_url


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200",
        "168.63.129.16", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1",
        "fe80::1", "fec0::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00:1::",
    ],
)  # fmt: skip
def test_no_address_that_is_not_everyones_is_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1", "2002:101:101::"]
)
def test_public_addresses_are_public_as_a_control(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


def test_a_name_is_refused_if_one_of_its_addresses_is_private_and_the_refusal_is_counted() -> None:
    guard = Guard(resolve=lambda host, port: ["1.1.1.1", "10.0.0.7"], proxies={})
    with pytest.raises(FreeholdError) as caught:
        guard.addresses("mixed.test", 443)
    assert caught.value.code == "net-address-refused"
    assert "10.0.0.7" in caught.value.message
    assert guard.refusals == 1
    assert [(d.place, d.refused, d.connections) for d in guard.destinations()] == [("mixed.test:443", 1, 0)]
    assert Guard(resolve=lambda host, port: ["1.1.1.1"], proxies={}).addresses("fine.test", 443) == ["1.1.1.1"]


@pytest.mark.parametrize("spelled", ["2130706433", "0x7f.1", "127.1", "017700000001"])
def test_odd_spellings_of_loopback_are_refused_however_the_system_reads_them(spelled: str) -> None:
    with pytest.raises((FreeholdError, OSError)) as caught:
        Guard(proxies={}).addresses(spelled, 80)
    assert getattr(caught.value, "code", "net-address-refused") == "net-address-refused"


def test_trust_is_for_the_named_host_and_port_only() -> None:
    guard = Guard({"Internal.test:8443", "[::1]:9", "10.0.0.5"}, resolve=lambda host, port: ["10.1.1.1"], proxies={})
    assert guard.addresses("internal.test", 8443) == ["10.1.1.1"]
    assert guard.addresses("::1", 9) == ["::1"]
    assert guard.addresses("10.0.0.5", 1234) == ["10.0.0.5"]
    assert guard.addresses("other.test", 1, frozenset({"other.test:1"})) == ["10.1.1.1"]
    for host, port in (("internal.test", 443), ("::1", 10), ("10.0.0.6", 1234), ("localhost", 9)):
        with pytest.raises(FreeholdError):
            guard.addresses(host, port)


def test_local_only_reaches_named_loopback_ports_and_sends_not_even_a_dns_query() -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    guard = Guard(
        {"127.0.0.1:80", "localhost:80", "sneaky.test"}, local_only=True, resolve=resolve, proxies={"http": "http://1.1.1.1:3128"}
    )
    assert guard.addresses("127.0.0.1", 80) == ["127.0.0.1"]
    assert guard.addresses("localhost", 80)[0] == "127.0.0.1"
    for host in ("sneaky.test", "1.1.1.1", "10.0.0.1", "::ffff:1.1.1.1"):
        with pytest.raises(FreeholdError) as caught:
            guard.addresses(host, 80)
        assert caught.value.code == "net-local-only"
    with pytest.raises(FreeholdError) as unnamed:
        guard.addresses("127.0.0.1", 81)
    assert unnamed.value.code == "net-address-refused"
    assert asked == []
    assert guard.refusals == 5
    assert guard.proxy(parse_url("http://example.test/")) is None


def test_proxies_come_from_the_environment_and_never_serve_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:pw@proxy.test:3128")
    monkeypatch.setenv("https_proxy", "proxy.test:3129")
    monkeypatch.setenv("NO_PROXY", "inside.test,.corp.test")
    guard = Guard()
    assert guard.proxy(parse_url("http://example.test/x")) == "http://user:pw@proxy.test:3128"
    assert guard.proxy(parse_url("https://example.test/x")) == "http://proxy.test:3129"
    for url in ("http://inside.test/", "https://a.corp.test/", "http://127.0.0.1:1/", "http://localhost/", "http://[::1]/"):
        assert guard.proxy(parse_url(url)) is None
    with pytest.raises(FreeholdError) as caught:
        guard.check(parse_url("http://169.254.169.254/latest"))
    assert caught.value.code == "net-address-refused"
    guard.check(parse_url("http://example.test/"))
