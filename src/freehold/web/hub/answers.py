"""What the house knows, written as the Hub API writes it: models, files, folders, refs, commits, errors.

Only what is known is said: no download counts are made up, and a field that clients read as optional is left out when the
house has nothing for it. It makes values, not responses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from freehold.flows.read_file import RepoInfo, pointer_size
from freehold.nouns.files import FileEntry
from freehold.nouns.ids import RepoId, RepoKind
from freehold.nouns.moment import iso

#: Fields of a model that `?expand=` may name.
EXPANDABLE = frozenset({
    "author", "baseModels", "cardData", "config", "createdAt", "disabled", "downloads", "downloadsAllTime", "gated", "gguf",
    "lastModified", "library_name", "likes", "model-index", "pipeline_tag", "private", "resourceGroup", "safetensors", "sha",
    "siblings", "spaces", "tags", "trendingScore", "usedStorage", "widgetData", "transformersInfo", "inference", "maskToken",
    "childrenModelCount", "evalResults", "inferenceProviderMapping", "mask_token", "description", "citation", "paperswithcode_id",
})  # fmt: skip
_LIBRARIES = {"gguf": "gguf", "safetensors": "transformers"}


def model(
    info: RepoInfo, *, expand: Iterable[str] = (), blobs: bool = False, listing: bool = False, full: bool = True
) -> dict[str, Any]:
    """A ModelInfo (or DatasetInfo). With `expand` only its fields and the id; `listing` is the short form of lists."""
    every = _fields(info, blobs=blobs)
    identity = {k: every[k] for k in ("_id", "id")}
    wanted = frozenset(expand)
    if wanted:
        return identity | {k: v for k, v in every.items() if k in wanted}
    if listing and not full:
        for field in (
            "siblings",
            "cardData",
            "config",
            "gguf",
            "sha",
            "usedStorage",
            "spaces",
            "author",
            "disabled",
            "baseModels",
        ):
            every.pop(field, None)
    else:
        every.pop("baseModels", None)
    return every


def _fields(info: RepoInfo, *, blobs: bool) -> dict[str, Any]:
    repo, facts = info.repo, info.facts
    name = str(repo.id)
    card = _card(info)
    found: dict[str, Any] = {
        "_id": hashlib.sha256(repo.uuid.encode()).hexdigest()[:24],
        "id": name,
        "author": repo.id.namespace,
        "sha": info.revision.commit.sha,
        "lastModified": iso(repo.updated_at),
        "createdAt": iso(repo.created_at),
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(info, card),
        "cardData": card,
        "siblings": [_sibling(e, blobs=blobs) for e in info.manifest],
        "spaces": [],
        "usedStorage": sum({e.sha256: e.size for e in info.manifest}.values()),
    }
    if repo.id.kind is RepoKind.MODEL:
        found |= {"modelId": name, "config": _config(facts)}
        if facts.get("format") in _LIBRARIES:
            found["library_name"] = _LIBRARIES[facts["format"]]
        if facts.get("format") == "gguf":
            known = {
                "total": facts.get("parameters"),
                "architecture": facts.get("architecture"),
                "context_length": facts.get("context"),
            }
            found["gguf"] = {k: v for k, v in known.items() if v is not None}
        if info.lineage:
            found["baseModels"] = {"relation": info.lineage[0].relation, "models": [{"id": edge.parent} for edge in info.lineage]}
    return found


def _card(info: RepoInfo) -> dict[str, Any]:
    declared = info.license.get("declared") or info.facts.get("license_declared")
    bases = [edge.parent for edge in info.lineage]
    return ({"license": declared} if isinstance(declared, str) else {}) | ({"base_model": bases} if bases else {})


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": facts["architecture"]} if facts.get("architecture") else {}


def _tags(info: RepoInfo, card: dict[str, Any]) -> list[str]:
    tags = [info.facts["format"]] if info.facts.get("format") else []
    tags += [f"license:{card['license']}"] if "license" in card else []
    return tags + [f"base_model:{base}" for base in card.get("base_model", [])]


def _sibling(entry: FileEntry, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    more: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.git_oid}
    if entry.lfs:
        more["lfs"] = {"sha256": entry.sha256.hex, "size": entry.size, "pointerSize": pointer_size(entry)}
    return more


def file(entry: FileEntry) -> dict[str, Any]:
    """One file of a tree."""
    found: dict[str, Any] = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": entry.path}
    if entry.lfs:
        found["lfs"] = {"oid": entry.sha256.hex, "size": entry.size, "pointerSize": pointer_size(entry)}
    return found


def folder(path: str, oid: str) -> dict[str, Any]:
    """One folder of a tree; `oid` is its git tree id."""
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def refs(listed: Iterable[Any], *, pull_requests: bool) -> dict[str, Any]:
    """Refs by their kind."""
    found: dict[str, Any] = {"tags": [], "branches": [], "converts": []} | ({"pullRequests": []} if pull_requests else {})
    kinds = {"heads": "branches", "tags": "tags", "pr": "pullRequests", "convert": "converts"}
    for ref in listed:
        kind, _, name = ref.name.partition("/")
        place = found.get(kinds.get(kind, ""))
        if place is not None:
            place.append({"name": name, "ref": f"refs/{ref.name}", "targetCommit": ref.commit.sha})
    return found


def commit(revision: Any) -> dict[str, Any]:
    """One commit of a history."""
    title, _, message = revision.title.partition("\n")
    date = iso(revision.authored_at)
    return {
        "id": revision.commit.sha,
        "title": title,
        "message": message.strip(),
        "authors": [{"user": revision.author}],
        "date": date,
    }


def last_commit(revision: Any) -> dict[str, str]:
    return {"id": revision.commit.sha, "title": revision.title.partition("\n")[0], "date": iso(revision.authored_at)}


def identity(name: str, key: str, writes: bool, orgs: Iterable[str]) -> dict[str, Any]:
    """whoami-v2: `name` is what the key is called."""
    token = {"displayName": name, "role": "write" if writes else "read"}
    return {
        "type": "user", "id": hashlib.sha256(key.encode()).hexdigest()[:24], "name": name, "fullname": name, "isPro": False,
        "orgs": [{"name": org} for org in orgs], "auth": {"type": "access_token", "accessToken": token},
    }  # fmt: skip


def same_repo(asked: RepoId, found: RepoId) -> bool:
    """Whether the name asked for is today's name, case apart."""
    return asked.key == found.key
