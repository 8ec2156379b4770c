"""What a request's URL asks of an origin, read from its raw path.

Why from the raw path: a revision may hold slashes (refs/pr/1), which clients send as %2F; a path that a framework has
already decoded can no longer say where the revision ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

_ACTIONS = frozenset({"revision", "tree", "paths-info", "refs", "commits", "auth-check", "xet-read-token"})
_KINDS = frozenset({"models", "datasets", "spaces"})


@dataclass(frozen=True, slots=True)
class Address:
    """`action` is a word of the API (info, list, tree, paths-info, refs, commits, auth-check), resolve, cdn, or the name of
    a route without a model (whoami-v2, agent-harnesses, "" for an unknown one). `path` is a file's or folder's.
    """

    action: str
    repo: str = ""
    revision: str = "main"
    path: str = ""
    kind: str = "models"


def read_address(raw_path: str) -> Address:
    parts = [unquote(part) for part in raw_path.lstrip("/").split("/")]
    if parts[0] == "api":
        return _api(parts[1:])
    if parts[:2] == ["-", "cdn"] and len(parts) >= 6:
        return Address("cdn", "/".join(parts[2:4]).removeprefix("-/"), parts[4], "/".join(parts[5:]))
    kind = "models"
    if parts[0] in _KINDS:
        kind, parts = parts[0], parts[1:]
    for at in (1, 2):
        if len(parts) > at + 2 and parts[at] == "resolve" and (at == 2 or parts[2] != "resolve"):
            return Address("resolve", "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]), kind)
    return Address("root" if parts == [""] else "")


def _api(parts: list[str]) -> Address:
    if not parts or parts[0] not in _KINDS:
        known = parts and parts[0] in ("whoami-v2", "agent-harnesses", "telemetry")
        return Address(parts[0] if known else "")
    kind, rest = parts[0], [p for p in parts[1:] if p] if parts[1:] == [""] else parts[1:]
    if not rest:
        return Address("list", kind=kind)
    bare = len(rest) > 1 and rest[1] in _ACTIONS and not (len(rest) > 2 and rest[2] in _ACTIONS)
    at = 1 if bare or len(rest) == 1 else 2
    repo, tail = "/".join(rest[:at]), rest[at:]
    if not tail:
        return Address("info", repo, kind=kind)
    if tail[0] == "revision":
        return Address("info", repo, "/".join(tail[1:]) or "main", kind=kind)
    if tail[0] not in _ACTIONS:
        return Address("")
    return Address(tail[0], repo, tail[1] if len(tail) > 1 else "main", "/".join(tail[2:]).strip("/"), kind)
