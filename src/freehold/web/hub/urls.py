"""URLs of the Hub API, parsed from their raw form: what is asked for, of which repository, at which revision, which path.

A revision may hold an encoded slash (refs%2Fpr%2F1) and a repository may lack a namespace, so the decoded path that
frameworks route on says too little. Rules: segments are split at plain slashes, then decoded once; a keyword in third
place beats one in second (`org/name/tree/...` before `name/tree/...`); what is decoded must be UTF-8 without control characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from freehold.errors import FreeholdError
from freehold.nouns.ids import RepoId, RepoKind

_KINDS = {"models": RepoKind.MODEL, "datasets": RepoKind.DATASET}
#: Keyword after the id -> whether a revision follows.
_ACTIONS = {
    "revision": True, "tree": True, "paths-info": True, "commits": True, "refs": False, "auth-check": False,
    "resolve": True, "raw": True, "blob": True,
}  # fmt: skip
_IN_API = frozenset(_ACTIONS) - {"resolve", "raw", "blob"}
_IN_PAGES = frozenset({"resolve", "raw", "blob", "tree", "commits"})


@dataclass(frozen=True, slots=True)
class HubUrl:
    """`action` is info, one of the keywords, or for routes without a repository `list`, `whoami`, `harnesses`, `telemetry`."""

    action: str
    kind: RepoKind = RepoKind.MODEL
    repo: tuple[str | None, str] | None = None
    revision: str | None = None
    path: str = ""
    api: bool = True

    @property
    def repo_id(self) -> RepoId:
        """FreeholdError catalog-id-invalid if it is no name."""
        assert self.repo is not None  # noqa: S101 - asked for by the actions that have one
        namespace, name = self.repo
        return RepoId(name=name, namespace=namespace, kind=self.kind)


def parse_url(raw_path: str) -> HubUrl | None:
    """None if the path is none of the Hub API's. FreeholdError server-bad-request if it is not well encoded."""
    segments = [_decoded(s) for s in raw_path.split("/")[1:]]
    if segments and segments[-1] == "":
        segments.pop()
    if not segments:
        return None
    if segments[0] == "api":
        return _parse_api(segments[1:])
    if segments[0] in _KINDS:
        return _parse_repo(segments[1:], _KINDS[segments[0]], api=False)
    return _parse_repo(segments, RepoKind.MODEL, api=False)


def _parse_api(segments: list[str]) -> HubUrl | None:
    match segments:
        case ["whoami-v2"]:
            return HubUrl("whoami")
        case ["agent-harnesses"]:
            return HubUrl("harnesses")
        case ["telemetry", *_]:
            return HubUrl("telemetry")
        case [kind] if kind in _KINDS:
            return HubUrl("list", _KINDS[kind])
        case [kind, *rest] if kind in _KINDS:
            return _parse_repo(rest, _KINDS[kind], api=True)
    return None


def _parse_repo(segments: list[str], kind: RepoKind, *, api: bool) -> HubUrl | None:
    known = _IN_API if api else _IN_PAGES
    for place in (2, 1):
        if len(segments) <= place or segments[place] not in known:
            continue
        action, rest = segments[place], segments[place + 1 :]
        repo = (segments[0], segments[1]) if place == 2 else (None, segments[0])
        if not _ACTIONS[action]:
            return HubUrl(action, kind, repo, path="/".join(rest), api=api)
        if rest:
            return HubUrl(action, kind, repo, rest[0], "/".join(rest[1:]), api)
    if len(segments) in (1, 2):
        repo = (segments[0], segments[1]) if len(segments) == 2 else (None, segments[0])
        return HubUrl("info", kind, repo, api=api)
    return None


def _decoded(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FreeholdError("server-bad-request", "the path is not UTF-8") from error
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise FreeholdError("server-bad-request", "the path holds control characters")
    return text
