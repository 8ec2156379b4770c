"""Reading what a hub lists: files with sizes and hashes, from the model's page (siblings) or its tree; and its facts.

Pure: JSON values in, nouns out, every field checked, since a listing is a stranger's input. It asks nothing.
"""

from __future__ import annotations

import re
from typing import Any

from freehold.errors import FreeholdError
from freehold.formats import git
from freehold.keep.sources.source import SourceFile
from freehold.nouns.digest import Digest
from freehold.nouns.moment import parse_iso

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def commit_of(info: Any, what: str) -> str:
    """The commit that the model's page is about; FreeholdError keep-hub-invalid."""
    sha = info.get("sha") if isinstance(info, dict) else None
    if not isinstance(sha, str) or not _SHA1.fullmatch(sha):
        raise FreeholdError("keep-hub-invalid", f"the hub does not say which commit {what} is")
    return sha


def sibling_files(info: dict[str, Any], what: str) -> list[SourceFile] | None:
    """The files of the model's page; None if one of them lacks its size or its hash, as where `blobs` is not understood."""
    rows = info.get("siblings")
    if not isinstance(rows, list):
        return None
    files = []
    for row in rows:
        path = row.get("rfilename") if isinstance(row, dict) else None
        if not isinstance(path, str):
            raise FreeholdError("keep-hub-invalid", f"the hub lists a file without a name in {what}")
        file = _file(path, row.get("size"), row.get("blobId"), row.get("lfs"), "sha256", None)
        if file is None:
            return None
        files.append(file)
    return files


def tree_files(rows: Any, what: str) -> list[SourceFile]:
    """The files of one page of the tree. FreeholdError keep-hub-invalid."""
    if not isinstance(rows, list):
        raise FreeholdError("keep-hub-invalid", f"the hub's listing of {what} is no list")
    files = []
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise FreeholdError("keep-hub-invalid", f"the hub lists a file without a name in {what}")
        if row.get("type") == "directory":
            continue
        file = _file(row["path"], row.get("size"), row.get("oid"), row.get("lfs"), "oid", row.get("xetHash"))
        if file is None:
            raise FreeholdError("keep-hub-invalid", f"the hub lists {row['path']!r} of {what} without size or hash")
        files.append(file)
    return files


def _file(path: str, size: Any, oid: Any, lfs: Any, sha_key: str, xet: Any) -> SourceFile | None:
    if isinstance(lfs, dict):
        sha256, size = lfs.get(sha_key, lfs.get("sha256", lfs.get("oid"))), lfs.get("size", size)
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256.removeprefix("sha256:")) or not _is_size(size):
            return None
        digest = Digest.sha256(sha256.removeprefix("sha256:"))
        pointer = oid if isinstance(oid, str) and _SHA1.fullmatch(oid) else None
        xet_hash = xet if isinstance(xet, str) and _SHA256.fullmatch(xet) else None
        return SourceFile(path, size, digest, pointer, lfs=True, xet_hash=xet_hash, mode=git.FILE)
    if not _is_size(size) or not isinstance(oid, str) or not _SHA1.fullmatch(oid):
        return None
    return SourceFile(path, size, None, oid)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def upstream_facts(info: dict[str, Any]) -> dict[str, Any]:
    """What the model's page says besides its files, as far as it is of the expected type: kept with the origin."""
    wanted = {
        "id": str, "_id": str, "author": str, "private": bool, "disabled": bool, "lastModified": str, "createdAt": str,
        "library_name": str, "pipeline_tag": str,
    }  # fmt: skip
    facts = {name: info[name] for name, kind in wanted.items() if isinstance(info.get(name), kind)}
    if isinstance(info.get("gated"), str | bool):
        facts["gated"] = info["gated"]
    card = info.get("cardData")
    if isinstance(card, dict):
        facts |= {f"card_{n}": card[n] for n in ("license", "license_name", "license_link") if isinstance(card.get(n), str)}
    return {name: _clean(value, 2000) if isinstance(value, str) else value for name, value in facts.items()}


def commit_facts(rows: Any, sha: str) -> tuple[str, str, int] | None:
    """(title, author, UTC microseconds) of commit `sha` from a page of the history; None if it does not say."""
    row = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if row.get("id") != sha or not isinstance(row.get("title"), str):
        return None
    at = moment_of(row.get("date"))
    authors = row.get("authors")
    first = authors[0] if isinstance(authors, list) and authors and isinstance(authors[0], dict) else {}
    author = first.get("user") or first.get("name") or ""
    return None if at is None else (_clean(row["title"], 500), _clean(str(author), 200), at)


def _clean(text: str, limit: int) -> str:
    """Text that can be written anywhere: JSON may hold halves of surrogate pairs, UTF-8 may not."""
    return text[:limit].encode("utf-8", "replace").decode()


def moment_of(value: Any) -> int | None:
    """UTC microseconds of an ISO date, None if it is none."""
    try:
        return parse_iso(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def ref_named(rows: Any, name: str) -> str | None:
    """`heads/<name>` or `tags/<name>` as the hub's list of refs knows it; None if it does not list it."""
    if not isinstance(rows, dict):
        return None
    for key, prefix in (("branches", "heads"), ("tags", "tags")):
        listed = rows.get(key)
        for row in listed if isinstance(listed, list) else []:
            if isinstance(row, dict) and row.get("name") == name:
                return f"{prefix}/{name}"
    return None
