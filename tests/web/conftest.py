"""A home with models of every visibility, and the product's own server over it."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from freehold.app import House, house
from freehold.flows import keys
from freehold.nouns.caller import Scope
from freehold.nouns.origin import Admission
from freehold.testing.kept import keep
from freehold.testing.server import running_server
from freehold.web.send import SendfileProtocol
from freehold.web.server import build

#: Twelve million bytes: a large file, whose ETag is its sha256.
WEIGHTS = random.Random(11).randbytes(12_000_000)  # noqa: S311 - a seed, not a secret
FILES = {
    "README.md": b"# A model\n",
    "config.json": b'{"model_type": "tiny"}\n',
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "notes/deep/er.txt": b"deeper\n",
    "notes/\u00fcber uns.txt": b"umlaut and space\n",
}
FACTS = {"format": "safetensors", "architecture": "tiny", "license_declared": "apache-2.0"}


@dataclass(frozen=True)
class Kept:
    """The served home: `commit` is that of org/model at main, `keys` maps a role to its token."""

    house: House
    url: str
    commit: str
    first: str
    keys: dict[str, str]
    files: dict[str, bytes]


def fill(opened: House) -> tuple[str, str, dict[str, str]]:
    """Models of every visibility and keys of every role."""
    parts = opened.parts
    first = keep(
        parts, "org/model", {"README.md": b"# Old\n", "config.json": FILES["config.json"]}, refs=("tags/v0",), title="old"
    )
    commit = keep(
        parts,
        "org/model",
        FILES,
        refs=("heads/main", "tags/v1", "pr/1", "heads/feature/x"),
        title="new\n\nwith more",
        model_facts=FACTS,
    )
    keep(parts, "bare", {"config.json": b"{}"})
    keep(parts, "org/private", FILES, private=True)
    keep(parts, "org/bad", {"evil.pkl": b"x"}, admission=Admission.QUARANTINED, reason="evil.pkl imports os.system")
    keep(parts, "org/refused", {"evil.pkl": b"y"}, admission=Admission.REFUSED, reason="the license forbids it")
    keep(parts, "org/gated", {"config.json": b"{ }"}, gated="auto")
    roles = {"read": {Scope.READ}, "write": {Scope.READ, Scope.WRITE}, "chat": {Scope.CHAT}, "admin": {Scope.ADMIN}}
    tokens = {
        role: keys.create_key(parts, opened.caller, f"{role} key", frozenset(scopes)).token for role, scopes in roles.items()
    }
    return commit, first, tokens


@contextmanager
def served(home: Path, **flags: object) -> Iterator[Kept]:
    """A filled home behind a real server."""
    with house(str(home), **flags) as opened:
        commit, first, tokens = fill(opened)
        with running_server(build(opened), http=SendfileProtocol) as url:
            yield Kept(opened, url, commit, first, tokens, FILES)


@dataclass(frozen=True)
class Got:
    """An answer: `headers` with lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asker:
    """Plain HTTP to one server; the path goes out exactly as it is written."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    def __call__(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None, key: str | None = None
    ) -> Got:
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        with closing(http.client.HTTPConnection(self._url.netloc, timeout=20)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Got(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def raw(self, request: bytes) -> bytes:
        """Bytes as they are; all that comes back until the server closes."""
        with socket.create_connection((self._url.hostname, self._url.port), timeout=20) as connection:
            connection.sendall(request)
            with connection.makefile("rb") as stream:
                return stream.read()


@pytest.fixture(scope="session")
def ask(kept: Kept) -> Asker:
    """Requests to the served home."""
    return Asker(kept.url)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One served home for all tests that only read."""
    with served(tmp_path_factory.mktemp("kept") / "home") as found:
        yield found
