"""What a user asks to pull: `pypi:package==version`, `hf:org/name@revision`, or a path."""

from __future__ import annotations

import re
from dataclasses import dataclass

from freehold.errors import FreeholdError
from freehold.nouns.ids import RepoId

_PYPI = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?:==(?P<version>[A-Za-z0-9.!+_-]+))?")


@dataclass(frozen=True, slots=True)
class PypiReference:
    package: str
    version: str | None

    def __str__(self) -> str:
        return f"pypi:{self.package}" + (f"=={self.version}" if self.version else "")


@dataclass(frozen=True, slots=True)
class HubReference:
    repo: RepoId
    revision: str

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class PathReference:
    path: str

    def __str__(self) -> str:
        return self.path


Reference = PypiReference | HubReference | PathReference


def parse_reference(text: str) -> Reference:
    """FreeholdError keep-reference-invalid if `text` fits none of the three forms."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "pypi":
        match = _PYPI.fullmatch(rest)
        if not match:
            raise FreeholdError("keep-reference-invalid", f"not a package requirement: {rest!r}", reference=text)
        return PypiReference(match["name"], match["version"])
    if colon and scheme == "hf":
        name, _, revision = rest.partition("@")
        return HubReference(RepoId.parse(name), revision or "main")
    if colon and re.fullmatch(r"[a-z][a-z0-9+]+", scheme) and len(scheme) > 1:
        raise FreeholdError("keep-reference-invalid", f"unknown source {scheme!r} in {text!r}", reference=text)
    if not text:
        raise FreeholdError("keep-reference-invalid", "an empty reference", reference=text)
    return PathReference(text)
