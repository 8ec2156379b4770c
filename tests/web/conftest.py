"""A home with models of every visibility, and the product's own server over it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    "notes/\u00fcber uns.txt": "umlaut and space\n".encode(),
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
    roles = {"read": Scope.READ, "write": Scope.WRITE, "chat": Scope.CHAT, "admin": Scope.ADMIN}
    tokens = {
        role: keys.create_key(parts, opened.caller, f"{role} key", frozenset({scope})).token for role, scope in roles.items()
    }
    return commit, first, tokens


@contextmanager
def served(home: Path, **flags: object) -> Iterator[Kept]:
    """A filled home behind a real server."""
    with house(str(home), **flags) as opened:
        commit, first, tokens = fill(opened)
        with running_server(build(opened), http=SendfileProtocol) as url:
            yield Kept(opened, url, commit, first, tokens)


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One served home for all tests that only read."""
    with served(tmp_path_factory.mktemp("kept") / "home") as found:
        yield found
