"""The JSON half of the hub's read API over a site: what each question's answer contains.

The field names are the Hub API's. Pages follow by a Link header that names this origin. Refusals carry X-Error-Code and
X-Error-Message, as its clients read them. It neither sends files (that is `wire`) nor changes anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from freehold.errors import FreeholdError
from freehold.formats.gguf import read_gguf
from freehold.formats.git import lfs_pointer
from freehold.formats.safetensors import read_safetensors
from freehold.formats.source import FileSource
from freehold.lab.address import Address
from freehold.lab.history import Commit, Repository, folder_ids
from freehold.lab.site import Site, Standing
from freehold.nouns.files import FileEntry
from freehold.nouns.ids import RepoId
from freehold.nouns.moment import iso

#: Entries of one page of a tree, with and without expand, as the hub has it.
TREE_PAGE, EXPANDED_PAGE = 1000, 50


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the lab
    """An answer that says no: `status`, the hub's error code and words."""

    def __init__(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass(frozen=True, slots=True)
class Query:
    """A question: `base` is the origin's own URL, `url` what was asked, `token` the bearer's, `form` the fields of a body."""

    address: Address
    base: str
    url: str
    query: Mapping[str, Sequence[str]]
    token: str | None = None
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def one(self, name: str, default: str = "") -> str:
        return next(iter(self.query.get(name, ())), default)

    def many(self, name: str) -> list[str]:
        return [*self.query.get(name, ()), *self.query.get(f"{name}[]", ())]

    def flag(self, name: str) -> bool:
        return self.one(name).lower() in ("1", "true")


@dataclass(frozen=True, slots=True)
class Page:
    """A JSON answer and its headers."""

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_fields(text: str) -> dict[str, list[str]]:
    """Fields of a query string or a form, each with all its values."""
    result: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        result.setdefault(name, []).append(value)
    return result


def parse_form(content_type: str, body: bytes) -> dict[str, list[str]]:
    """A form or a JSON object, as lists of text; empty if it is neither."""
    if "json" not in content_type:
        return parse_fields(body.decode("utf-8", "replace"))
    try:
        data = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    return {name: _texts(value) for name, value in data.items()}


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return [value if isinstance(value, str) else json.dumps(value)]


def admit(site: Site, query: Query, *, files: bool = False) -> tuple[Repository, Standing]:
    """The model that the question is about, if the asker may see it (with `files`: have its files). Refused otherwise."""
    token = query.token
    if token is not None and site.user_of(token) is None:
        raise Refused(401, None, "Invalid credentials in Authorization header")
    absent = Refused(401 if token is None else 404, "RepoNotFound", "Repository not found")
    try:
        repository = site.repository(query.address.repo)
    except FreeholdError:
        raise absent from None
    stand = site.standing(query.address.repo)
    if query.address.kind != "models" or stand.deleted or (stand.private and token not in stand.accepted):
        raise absent
    if stand.moved_to is not None:
        old, new = f"/{query.address.repo}", f"/{stand.moved_to}"
        raise Refused(307, None, f"moved to {stand.moved_to}", {"Location": query.url.replace(old, new, 1)})
    if stand.disabled:
        raise Refused(403, None, "Access to this resource is disabled.")
    if files and stand.gated is not None and token not in stand.accepted:
        said = "You must have access to it and be authenticated to access it. Please log in."
        said = said if token is None else "You are not in the authorized list. Ask for access first."
        raise Refused(401 if token is None else 403, "GatedRepo", f"Access to model {repository.id} is restricted. {said}")
    return repository, stand


def revision_of(repository: Repository, query: Query) -> Commit:
    """Refused with RevisionNotFound."""
    try:
        return repository.resolve(query.address.revision)
    except FreeholdError:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {query.address.revision}") from None


def answer(site: Site, query: Query) -> Page:
    """Refused for what is not there or not allowed."""
    action = query.address.action
    if action == "list":
        return _list(site, query)
    if action == "agent-harnesses":
        return Page({})
    if action == "whoami-v2":
        return _whoami(site, query)
    if action in ("info", "tree", "paths-info", "refs", "commits", "auth-check"):
        repository, stand = admit(site, query, files=action == "auth-check")
        if action == "info":
            return Page(_info(site, repository, stand, query))
        if action == "refs":
            return Page(_refs(repository, query))
        if action == "auth-check":
            return Page({})
        commit = revision_of(repository, query)
        if action == "commits":
            return _commits(repository, query)
        return _tree(repository, commit, query) if action == "tree" else _paths_info(repository, commit, query)
    if action in ("root", "telemetry"):
        return Page({"origin": "freehold lab"})
    raise Refused(404, None, "Sorry, we can't find the page you are looking for.")


def _whoami(site: Site, query: Query) -> Page:
    user = site.user_of(query.token) if query.token else None
    if user is None:
        raise Refused(401, None, "Invalid user token." if query.token else "Invalid username or password.")
    token = {"type": "access_token", "accessToken": {"displayName": "lab", "role": "read"}}
    who = {"type": "user", "id": _stable_id(user), "name": user, "fullname": user}
    return Page(who | {"isPro": False, "orgs": [], "auth": token})


def _list(site: Site, query: Query) -> Page:
    rows = []
    wanted = [f for f in query.many("filter") if f]
    for id_ in site.models() if query.address.kind == "models" else []:
        repository, stand = site.repository(id_), site.standing(id_)
        if stand.private and query.token not in stand.accepted:
            continue
        row = _info(site, repository, stand, query, listing=True)
        author = query.one("author").lower()
        hit = query.one("search").lower() in id_.lower() and author in ("", (repository.id.namespace or "").lower())
        tags = {*row["tags"], row["library_name"], row["pipeline_tag"]}
        if hit and all(f in tags for f in wanted):
            rows.append(row)
    by = {"created_at": "createdAt", "last_modified": "lastModified", "lastModified": "lastModified"}.get(query.one("sort"), "")
    if by:
        rows.sort(key=lambda r: str(r[by]), reverse=query.one("direction", "-1") == "-1")
    if expand := set(query.many("expand")):
        rows = [{k: v for k, v in row.items() if k in expand | {"_id", "id", "modelId"}} for row in rows]
    elif not query.flag("full"):
        plain = {"_id", "id", "modelId", "private", "gated", "tags", "pipeline_tag", "library_name", "createdAt"}
        plain |= {"cardData"} if query.flag("cardData") else set()
        rows = [{k: v for k, v in row.items() if k in plain} for row in rows]
    return _paged(rows, query, _number(query.one("limit"), 1000))


def _info(site: Site, repository: Repository, stand: Standing, query: Query, *, listing: bool = False) -> dict[str, Any]:
    commit = repository.resolve("main") if listing else revision_of(repository, query)
    card = site.card(commit)
    listed = [
        card.get("license") and f"license:{card['license']}",
        *(_listed(card.get("tags"))),
        *(f"base_model:{b}" for b in _listed(card.get("base_model"))),
    ]
    first = min(repository.commits.values(), key=lambda c: c.at)
    blobs = query.flag("blobs") and not listing
    row: dict[str, Any] = {
        "_id": _stable_id(str(repository.id)),
        "id": str(repository.id),
        "modelId": str(repository.id),
        "author": repository.id.namespace,
        "sha": commit.sha,
        "lastModified": _date(commit),
        "createdAt": _date(first),
        "private": stand.private,
        "gated": stand.gated or False,
        "disabled": stand.disabled,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": [t for t in listed if t],
        "library_name": card.get("library_name"),
        "pipeline_tag": card.get("pipeline_tag"),
        "cardData": card,
        "config": _config(site, commit),
        **_weights(site, commit),
        "siblings": [_sibling(e, blobs=blobs) for e in commit.manifest],
        "spaces": [],
        "usedStorage": sum(e.size for e in commit.manifest),
    }
    if query.flag("securityStatus"):
        row["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    expand = set(query.many("expand"))
    return row if listing or not expand else {k: v for k, v in row.items() if k in expand | {"_id", "id"}}


def _sibling(entry: FileEntry, *, blobs: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": entry.path}
    if blobs:
        row |= {"size": entry.size, "blobId": entry.git_oid}
        if entry.lfs:
            row["lfs"] = {"sha256": entry.sha256.hex, "size": entry.size, "pointerSize": _pointer_size(entry)}
    return row


def _config(site: Site, commit: Commit) -> dict[str, Any]:
    """What the hub shows of config.json; empty where it is missing or not a JSON object."""
    entry = commit.find("config.json")
    try:
        config = json.loads(site.blob(entry.sha256.hex).read_bytes()) if entry else {}
    except ValueError:
        config = {}
    return {k: config[k] for k in ("architectures", "model_type") if k in config} if isinstance(config, dict) else {}


def _weights(site: Site, commit: Commit) -> dict[str, Any]:
    """What the hub reads from the headers of weight files: `safetensors` (parameters by type) and `gguf`."""
    found: dict[str, Any] = {}
    for entry in commit.manifest:
        facts = _header_facts(site.blob(entry.sha256.hex), entry.path.rpartition(".")[2])
        if "parameters" in facts:
            counts = found.setdefault("safetensors", {"parameters": {}, "total": 0})
            for dtype, count in facts["parameters"].items():
                counts["parameters"][dtype] = counts["parameters"].get(dtype, 0) + count
                counts["total"] += count
        elif facts:
            found.setdefault("gguf", facts)
    return found


@lru_cache(maxsize=256)  # by content: a blob's path is its sha256
def _header_facts(file: Path, suffix: str) -> Mapping[str, Any]:
    """Empty for other files and for headers that cannot be read: the hub shows nothing then."""
    if suffix not in ("safetensors", "gguf"):
        return {}
    try:
        with file.open("rb") as opened:
            source = FileSource(opened)
            if suffix == "safetensors":
                counts: dict[str, int] = {}
                for tensor in read_safetensors(source).tensors:
                    counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
                return {"parameters": counts}
            header = read_gguf(source)
    except (FreeholdError, OSError):
        return {}
    told = header.metadata
    arch = str(told.get("general.architecture", ""))
    facts = {"architecture": arch, "context_length": told.get(f"{arch}.context_length")}
    total = sum(t.elements for t in header.tensors)
    return {"total": total} | {k: v for k, v in facts.items() if v}


def _refs(repository: Repository, query: Query) -> dict[str, Any]:
    def rows(prefix: str) -> list[dict[str, str]]:
        named = {ref: sha for ref, sha in repository.refs.items() if ref.startswith(prefix)}
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha} for ref, sha in named.items()]

    body: dict[str, Any] = {"branches": rows("refs/heads/"), "tags": rows("refs/tags/"), "converts": []}
    return body | ({"pullRequests": []} if query.many("include_prs") else {})


def _commits(repository: Repository, query: Query) -> Page:
    rows = []
    for commit in repository.log(query.address.revision):
        row: dict[str, Any] = {
            "id": commit.sha,
            "title": commit.title,
            "message": commit.message,
            "date": _date(commit),
        }
        row["authors"] = [{"user": "freehold-lab", "avatar": ""}]
        if "formatted" in query.many("expand"):
            row["formatted"] = {"title": commit.title, "message": commit.message}
        rows.append(row)
    page = _paged(rows, query, _number(query.one("limit"), 50))
    return Page(page.body, {**page.headers, "X-Total-Count": str(len(rows))})


def _tree(repository: Repository, commit: Commit, query: Query) -> Page:
    folder, recursive, expand = query.address.path, query.flag("recursive"), query.flag("expand")
    prefix = f"{folder}/" if folder else ""
    below = [e for e in commit.manifest if e.path.startswith(prefix)]
    if folder and not below:
        raise Refused(
            404, "EntryNotFound", f"{folder} does not exist on {query.address.revision!r}", {"X-Repo-Commit": commit.sha}
        )
    trees = folder_ids(commit.manifest)
    changed = repository.last_change(commit.sha) if expand else {}
    rows: dict[str, dict[str, Any]] = {}
    for entry in below:
        inner = entry.path.removeprefix(prefix).split("/")
        for depth in range(1, len(inner) if recursive else min(len(inner), 2)):
            path = prefix + "/".join(inner[:depth])
            rows.setdefault(path, _folder_row(path, trees[path], changed))
        if recursive or len(inner) == 1:
            rows[entry.path] = _file_row(entry, changed)
    limit = _number(query.one("limit"), EXPANDED_PAGE if expand else TREE_PAGE)
    return _paged(list(rows.values()), query, limit)


def _paths_info(repository: Repository, commit: Commit, query: Query) -> Page:
    expand = (query.form.get("expand") or ["false"])[-1].lower() == "true"
    changed = repository.last_change(commit.sha) if expand else {}
    trees = folder_ids(commit.manifest)
    rows = []
    for path in [*query.form.get("paths", ()), *query.form.get("paths[]", ())]:
        entry = commit.find(path)
        if entry is not None:
            rows.append(_file_row(entry, changed))
        elif path.strip("/") in trees:
            rows.append(_folder_row(path.strip("/"), trees[path.strip("/")], changed))
    return Page(rows)


def _file_row(entry: FileEntry, changed: Mapping[str, Commit]) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        row["lfs"] = {"oid": entry.sha256.hex, "size": entry.size, "pointerSize": _pointer_size(entry)}
    if changed:
        row["lastCommit"] = _last(changed[entry.path])
        row["securityFileStatus"] = {"status": "safe", "avScan": {"status": "safe"}, "pickleImportScan": None}
    return row


def _folder_row(path: str, tree: str, changed: Mapping[str, Commit]) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "directory", "oid": tree, "size": 0, "path": path}
    if changed:
        row["lastCommit"] = _last(max((c for p, c in changed.items() if p.startswith(f"{path}/")), key=lambda c: c.at))
    return row


def _last(commit: Commit) -> dict[str, Any]:
    return {"id": commit.sha, "title": commit.title, "date": _date(commit)}


def _date(commit: Commit) -> str:
    """As git keeps it, to the second."""
    return iso(commit.at // 1_000_000 * 1_000_000)


def _paged(rows: Sequence[Any], query: Query, limit: int) -> Page:
    """One page from the cursor on, and the Link to the next; the cursor is an index, opaque to clients."""
    start = _number(query.one("cursor"), 0)
    limit = max(1, limit)
    headers = {}
    if start + limit < len(rows):
        fields = [(k, v) for k, values in query.query.items() if k != "cursor" for v in values]
        path = query.url.split("?")[0]
        headers["Link"] = f'<{query.base}{path}?{urlencode([*fields, ("cursor", str(start + limit))])}>; rel="next"'
    return Page(list(rows[start : start + limit]), headers)


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() else default


def _listed(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []


def _pointer_size(entry: FileEntry) -> int:
    return len(lfs_pointer(entry.sha256.hex, entry.size))


def _stable_id(text: str) -> str:
    return hashlib.sha256(RepoId.__name__.encode() + text.lower().encode()).hexdigest()[:24]
