"""What may be reached: the rule for addresses, the local-only rule, and the record of what was reached or refused.

The rules, for every connection (redirects included):
1. A name is resolved once, every address is checked, and the connection goes to a checked address.
2. Addresses that are not public (loopback, private, link-local, shared, reserved, multicast, cloud metadata, and IPv6
   forms that carry such an IPv4 address) are refused, unless the operator named that host, or host:port, as trusted.
   One bad address among good ones refuses the name.
3. Local only: no name is resolved and nothing but loopback is reached, so that no byte leaves, not even a DNS query.
   Rule 2 still holds: a loopback port must have been named.
4. A proxy from HTTP_PROXY, HTTPS_PROXY, NO_PROXY (upper or lower case; ALL_PROXY and SOCKS are not read) is used except for
   loopback and in local-only. Behind a proxy it is the proxy that resolves: then rule 2 holds for literal addresses and
   `localhost` only, and the proxy's own rules are the guard for names.

Why here and not in a firewall: both are wanted, but only here is it known which host the operator named. It does not
speak HTTP (`egress.py`, `async_http.py`).
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed

from freehold.errors import FreeholdError
from freehold.net.urls import Target, parse_url

#: Gives the addresses of a host, as text; OSError if there are none.
Resolve = Callable[[str, int], list[str]]

#: Public by their registry entry, yet served to a machine by its own cloud.
_METADATA = frozenset({"168.63.129.16"})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_RECORDS = 4096

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str, port: int) -> list[str]:
    """The system's resolver, duplicates dropped, order kept."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def literal(host: str) -> Address | None:
    """The address if `host` is one, without scope; None if it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether anyone may be sent there: globally routable, not multicast, no metadata, no private IPv4 inside an IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.is_reserved:
            return False
    return address.is_global and not address.is_multicast and str(address) not in _METADATA


def is_loopback(address: Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


@dataclass(slots=True)
class Destination:
    """What went to one host:port: connections made, the addresses they went to, and connections refused."""

    place: str
    connections: int = 0
    refused: int = 0
    addresses: set[str] = field(default_factory=set)


class Guard:
    """Decides and records, for any number of clients and threads.

    `trusted` holds `host` or `host:port` (IPv6 in brackets), named by the operator. `proxies` None: from the environment.
    """

    def __init__(
        self,
        trusted: Iterable[str] = (),
        *,
        local_only: bool = False,
        resolve: Resolve = resolve,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.trusted = frozenset(name.lower() for name in trusted)
        self.local_only = local_only
        self._resolve = resolve
        self._proxies = dict(getproxies_environment() if proxies is None else proxies)
        self._lock = threading.Lock()
        self._destinations: dict[str, Destination] = {}
        self._refusals = 0

    def trusts(self, host: str, port: int, more: frozenset[str] = frozenset()) -> bool:
        name = f"[{host}]" if ":" in host else host
        wanted = {name, host, f"{name}:{port}"}
        return bool(wanted & self.trusted) or bool(wanted & more)

    def addresses(self, host: str, port: int, more: frozenset[str] = frozenset()) -> list[str]:
        """The checked addresses of host:port, to be connected to as they are; `more` are hosts trusted for this call.

        FreeholdError net-local-only, net-address-refused; OSError from the resolver.
        """
        address = literal(host)
        if self.local_only and not (_is_localhost(host) or (address is not None and is_loopback(address))):
            raise self._refuse("net-local-only", host, port, f"'{host}' is not this machine, and local only is on")
        if address is not None:
            found = [str(address)]
        elif _is_localhost(host):
            found = ["127.0.0.1", "::1"]
        else:
            found = self._resolve(host, port)
        if not self.trusts(host, port, more):
            for text in found:
                judged = literal(text)
                if judged is None or not is_public(judged):
                    where = host if text == host else f"{host} ({text})"
                    raise self._refuse("net-address-refused", host, port, f"{where} is not a public address")
        return found

    def check(self, target: Target, more: frozenset[str] = frozenset()) -> None:
        """Refuse without connecting what is refused without resolving: all that can be known before a proxy resolves."""
        if self.local_only or literal(target.host) is not None or _is_localhost(target.host):
            self.addresses(target.host, target.port, more)

    def proxy(self, target: Target) -> str | None:
        """The proxy's URL for `target`; None to connect directly."""
        found = self._proxies.get(target.scheme)
        address = literal(target.host)
        here = _is_localhost(target.host) or (address is not None and is_loopback(address))
        if not found or self.local_only or here or proxy_bypass_environment(target.place, self._proxies):
            return None
        if "://" not in found:
            found = f"http://{found}"
        parse_url(found)
        return found

    def reached(self, host: str, port: int, address: str) -> None:
        """Record a connection that was made."""
        with self._lock:
            entry = self._entry(host, port)
            entry.connections += 1
            if len(entry.addresses) < 64:
                entry.addresses.add(address)

    @property
    def refusals(self) -> int:
        """How many connections were refused since the start."""
        with self._lock:
            return self._refusals

    def destinations(self) -> list[Destination]:
        """Copies of the records, by place; the first 4,096 places are kept apart, later ones count under `*`."""
        with self._lock:
            copies = [Destination(d.place, d.connections, d.refused, set(d.addresses)) for d in self._destinations.values()]
        return sorted(copies, key=lambda d: d.place)

    def _entry(self, host: str, port: int) -> Destination:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if place not in self._destinations and len(self._destinations) >= _RECORDS:
            place = "*"
        return self._destinations.setdefault(place, Destination(place))

    def _refuse(self, code: str, host: str, port: int, message: str) -> FreeholdError:
        with self._lock:
            self._refusals += 1
            self._entry(host, port).refused += 1
        return FreeholdError(code, message, host=host, port=port)
