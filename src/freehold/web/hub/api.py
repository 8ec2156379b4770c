"""The reading routes under /api: lists, models, trees, paths, refs, commits, and who a key is.

Each asks one flow and writes its answer in the Hub API's terms. Pages link to the next one on this server's own public URL,
and at the commit rather than the branch, so that a listing does not change while it is read.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from freehold.errors import FreeholdError
from freehold.flows import read_file
from freehold.flows.parts import Parts
from freehold.flows.read_file import RepoInfo
from freehold.flows.whoami import whoami
from freehold.nouns.caller import Caller
from freehold.nouns.caller import Scope as Right
from freehold.web.asgi import Answer, Header, Receive, Scope, header, json_answer, redirect, safe_header
from freehold.web.front import public_url, read_body
from freehold.web.hub import answers
from freehold.web.hub.house import HubHouse
from freehold.web.hub.urls import HubUrl

_PAGE_LIMIT, _EXPANDED_PAGE = 1000, 50
_TRUE = ("1", "true", "yes", "on")


async def list_repos(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET /api/models: search, author, filter, sort (lastModified, createdAt, id), direction, limit, expand, full."""
    query = _query(scope)
    limit = min(_number(query, "limit", _PAGE_LIMIT), _PAGE_LIMIT)
    after = _cursor(query)
    found, more = await house.ask(scope, _page_of_repos, url, query, limit, after)
    full = _flag(query, "full") or _flag(query, "cardData")
    rows = [answers.model(info, expand=_expand(query), listing=True, full=full) for info in found]
    return json_answer(rows, headers=_next(scope, str(after + more)) if more else ())


def _page_of_repos(
    parts: Parts, caller: Caller, url: HubUrl, query: dict[str, list[str]], limit: int, after: int
) -> tuple[list[RepoInfo], int]:
    """Up to `limit` repositories from place `after` on, and how many places were passed if there are more."""
    search, author = _one(query, "search"), _one(query, "author")
    listed = read_file.list_repos(parts, caller, url.kind, search=search, author=author)
    sort = _one(query, "sort")
    if sort in ("createdAt", "created_at"):
        listed.sort(key=lambda r: (-r.created_at, r.row))
    elif sort not in ("id", "_id", "modelId"):
        listed.sort(key=lambda r: (-r.updated_at, r.row))
    if _one(query, "direction") in ("1", "asc"):
        listed.reverse()
    tags = {tag.lower() for tag in query.get("filter", []) + query.get("tags", []) + query.get("library", [])}
    found: list[RepoInfo] = []
    passed = after
    while len(found) < limit and passed < len(listed):
        some = listed[passed : passed + limit - len(found)]
        passed += len(some)
        found += [info for info in read_file.describe_repos(parts, caller, some) if tags <= _names(info)]
    return found, passed - after if passed < len(listed) else 0


def _names(info: RepoInfo) -> set[str]:
    """What a filter may name of a model, in lower case."""
    fields = answers.model(info)
    return {tag.lower() for tag in fields["tags"]} | {str(fields.get("library_name", ""))}


async def info(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET /api/models/{id}[/revision/{revision}]: expand, blobs, securityStatus."""
    found = await house.ask_repo(scope, url.repo_id, url.revision, read_file.repo_info, url.revision)
    if not answers.same_repo(url.repo_id, found.repo.id):
        return _moved(scope, url, found)
    query = _query(scope)
    expand = _expand(query)
    unknown = sorted(set(expand) - answers.EXPANDABLE)
    if unknown:
        raise FreeholdError("server-bad-request", f"expand names unknown fields: {', '.join(unknown)}", field="expand")
    return json_answer(answers.model(found, expand=expand, blobs=_flag(query, "blobs")))


async def tree(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET .../tree/{revision}[/{path}]: recursive, expand, limit, cursor."""
    query = _query(scope)
    expand = _flag(query, "expand")
    limit = min(_number(query, "limit", _PAGE_LIMIT), _EXPANDED_PAGE if expand else _PAGE_LIMIT)
    found = await house.ask_repo(scope, url.repo_id, url.revision, read_file.repo_info, url.revision)
    if not answers.same_repo(url.repo_id, found.repo.id):
        return _moved(scope, url, found)
    folder = url.path.strip("/")
    rows = _listing(found, folder, recursive=_flag(query, "recursive"))
    if not rows and folder:
        message = f"{found.repo.id} at {found.revision.commit.sha[:12]} has no folder {folder!r}"
        raise FreeholdError("catalog-entry-not-found", message, path=folder, commit=found.revision.commit.sha)
    after = _one_cursor(query)
    rest = [row for row in rows if row["path"] > after]
    page = rest[:limit]
    if expand:
        await _with_last_commits(house, url, scope, page, found.revision.commit.sha)
    more = _next(scope, page[-1]["path"], revision=found.revision.commit.sha, url=url) if len(rest) > limit else ()
    return json_answer(page, headers=[(b"x-repo-commit", found.revision.commit.sha.encode()), *more])


def _listing(found: RepoInfo, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    rows: dict[str, dict[str, Any]] = {}
    trees: dict[str, str] = {}
    for entry in found.manifest:
        if not entry.path.startswith(prefix):
            continue
        below = entry.path[len(prefix) :].split("/")
        if len(below) == 1 or recursive:
            rows[entry.path] = answers.file(entry)
        for depth in range(1, len(below) if recursive else min(len(below), 2)):
            path = prefix + "/".join(below[:depth])
            if path not in rows:
                trees = trees or read_file.folder_ids(found.manifest)
                rows[path] = answers.folder(path, trees[path])
    return [rows[path] for path in sorted(rows)]


async def paths_info(house: HubHouse, url: HubUrl, scope: Scope, receive: Receive) -> Answer:
    """POST .../paths-info/{revision}: those of `paths` that exist, as files and folders."""
    body = await read_body(receive)
    paths, expand = _asked_paths(scope, body)
    found = await house.ask_repo(scope, url.repo_id, url.revision, read_file.repo_info, url.revision)
    files = {entry.path: entry for entry in found.manifest}
    trees = read_file.folder_ids(found.manifest)
    rows: list[dict[str, Any]] = []
    for path in dict.fromkeys(p.strip("/") for p in paths):
        if path in files:
            rows.append(answers.file(files[path]))
        elif path in trees and path:
            rows.append(answers.folder(path, trees[path]))
    if expand:
        await _with_last_commits(house, url, scope, rows, found.revision.commit.sha)
    return json_answer(rows)


async def refs(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET .../refs: include_prs."""
    listed = await house.ask_repo(scope, url.repo_id, None, read_file.refs)
    query = _query(scope)
    return json_answer(answers.refs(listed, pull_requests=_flag(query, "include_prs") or _flag(query, "include_pull_requests")))


async def commits(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET .../commits/{revision}: limit, p (page from 0)."""
    query = _query(scope)
    limit, page = min(_number(query, "limit", 50), _PAGE_LIMIT), _number(query, "p", 0, least=0)
    listed = await house.ask_repo(scope, url.repo_id, url.revision, read_file.commits, url.revision or read_file.MAIN)
    rows = [answers.commit(revision) for revision in listed[page * limit : (page + 1) * limit]]
    if "formatted" in _expand(query):
        for row in rows:
            row["formatted"] = {"title": _escaped(row["title"]), "message": _escaped(row["message"])}
    headers: list[Header] = [(b"x-total-count", str(len(listed)).encode())]
    if len(listed) > (page + 1) * limit:
        headers += _link(scope, p=str(page + 1))
    return json_answer(rows, headers=headers)


async def auth_check(house: HubHouse, url: HubUrl, scope: Scope) -> Answer:
    """GET .../auth-check[/write]: 200 if the caller may."""
    await house.ask_repo(scope, url.repo_id, None, read_file.refs)
    if url.path == "write":
        await house.ask(scope, lambda _parts, caller: caller.require(Right.WRITE))
    return json_answer({})


async def identity(house: HubHouse, scope: Scope) -> Answer:
    """GET /api/whoami-v2."""
    who = await house.ask(scope, whoami)
    return json_answer(answers.identity(who.name, who.key, who.writes, who.orgs))


async def _with_last_commits(house: HubHouse, url: HubUrl, scope: Scope, rows: list[dict[str, Any]], commit: str) -> None:
    since = await house.ask(scope, read_file.last_commits, url.repo_id, commit, [row["path"] for row in rows])
    for row in rows:
        if row["path"] in since:
            row["lastCommit"] = answers.last_commit(since[row["path"]])


def _moved(scope: Scope, url: HubUrl, found: RepoInfo) -> Answer:
    """A renamed repository: to its name of today, relative."""
    rest = "" if url.revision is None else f"/{url.action}/{quote(url.revision, safe='')}"
    rest += f"/{quote(url.path)}" if url.path else ""
    query = scope["query_string"].decode("latin-1")
    return redirect(f"{scope.get('root_path', '')}/api/{url.kind}s/{found.repo.id}{rest}" + (f"?{query}" if query else ""))


def _asked_paths(scope: Scope, body: bytes) -> tuple[list[str], bool]:
    """A form (`paths=a&paths=b&expand=true`) or the same as JSON."""
    bad = FreeholdError("server-bad-request", "the body must be a form or JSON with `paths`", field="paths")
    try:
        if (header(scope, b"content-type") or "").startswith("application/json"):
            data = json.loads(body or b"{}")
            given, expand = (data.get("paths", []), bool(data.get("expand"))) if isinstance(data, dict) else (None, False)
        else:
            form = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=100_000)
            given, expand = form.get("paths", []), _flag(form, "expand")
    except (ValueError, RecursionError) as error:
        raise bad from error
    paths = [given] if isinstance(given, str) else given
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise bad
    return paths, expand


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise FreeholdError("server-bad-request", "the query string cannot be read", field="query") from error


def _one(query: dict[str, list[str]], name: str) -> str:
    return query.get(name, [""])[-1]


def _flag(query: dict[str, list[str]], name: str) -> bool:
    return _one(query, name).lower() in _TRUE


def _number(query: dict[str, list[str]], name: str, default: int, *, least: int = 1) -> int:
    text = _one(query, name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise FreeholdError("server-bad-request", f"{name} must be a number from {least} on, not {text[:40]!r}", field=name)
    return int(text)


def _expand(query: dict[str, list[str]]) -> list[str]:
    return [part for value in query.get("expand", []) + query.get("expand[]", []) for part in value.split(",") if part]


def _one_cursor(query: dict[str, list[str]]) -> str:
    text = _one(query, "cursor")
    try:
        return base64.urlsafe_b64decode(text.encode("ascii")).decode("utf-8")
    except (ValueError, binascii.Error) as error:
        raise FreeholdError("server-bad-request", "the cursor is none that this server gave", field="cursor") from error


def _cursor(query: dict[str, list[str]]) -> int:
    text = _one_cursor(query)
    if text and not (text.isdecimal() and len(text) < 10):
        raise FreeholdError("server-bad-request", "the cursor is none that this server gave", field="cursor")
    return int(text or 0)


def _next(scope: Scope, after: str, *, revision: str = "", url: HubUrl | None = None) -> list[Header]:
    cursor = base64.urlsafe_b64encode(after.encode()).decode()
    return _link(scope, revision=revision, url=url, cursor=cursor)


def _link(scope: Scope, *, revision: str = "", url: HubUrl | None = None, **changed: str) -> list[Header]:
    """The Link header to the next page: the same request with `changed`, on our public URL."""
    path = scope["raw_path"].decode("latin-1").removeprefix(scope.get("root_path", ""))
    if url is not None and revision and url.repo is not None:
        path = f"/api/{url.kind}s/{url.repo_id}/{url.action}/{revision}" + (f"/{quote(url.path)}" if url.path else "")
    pairs = [(k, v) for k, v in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True) if k not in changed]
    target = f"{public_url(scope)}{path}?{urlencode([*pairs, *changed.items()])}"
    return [(b"link", b"<" + safe_header(target) + b'>; rel="next"')]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
