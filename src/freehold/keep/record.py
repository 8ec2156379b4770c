"""The record of a revision: one canonical JSON document, itself an object of the vault.

Why: names and facts live in the catalog, bytes in the vault; with this in the vault a model can be rebuilt from the vault
alone: its files, its commit with the very bytes of a native one, where it came from and under what declarations. Canonical
(sorted keys, no spaces, UTF-8), versioned, never pickled. It reads and writes bytes, nothing else.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId, RepoKind
from freehold.nouns.origin import Evidence, Lineage, Origin, Relation

FORMAT = "freehold-revision"
VERSION = 1


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """`kind` is native or foreign; `raw` are the bytes of a native git commit; `authored_at` in UTC microseconds."""

    repo: RepoId
    commit: CommitId
    kind: str
    tree_oid: str
    title: str
    author: str
    authored_at: int
    raw: bytes | None
    manifest: Manifest
    origin: Origin
    lineage: tuple[Lineage, ...] = ()

    def encode(self) -> bytes:
        """Inverse of `decode_record`."""
        origin = self.origin
        document = {
            "format": FORMAT,
            "version": VERSION,
            "repo": {"kind": self.repo.kind, "namespace": self.repo.namespace, "name": self.repo.name},
            "commit": {
                "sha": self.commit.sha,
                "kind": self.kind,
                "tree": self.tree_oid,
                "title": self.title,
                "author": self.author,
                "authored_at": self.authored_at,
                "raw": base64.b64encode(self.raw).decode() if self.raw is not None else None,
            },
            "files": [
                {
                    "path": e.path,
                    "size": e.size,
                    "sha256": e.sha256.hex,
                    "git": e.git_oid,
                    "lfs": e.lfs,
                    "mode": e.mode,
                    "xet": e.xet_hash,
                }
                for e in self.manifest
            ],
            "origin": {
                "source": origin.source,
                "locator": origin.locator,
                "taken_at": origin.taken_at,
                "etag": origin.upstream_etag,
                "evidence": str(origin.evidence) if origin.evidence else None,
                "detail": origin.detail,
            },
            "lineage": [
                {"parent": e.parent, "relation": e.relation, "evidence": e.evidence, "score": e.score, "method": e.method}
                for e in self.lineage
            ],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode_record(data: bytes) -> RevisionRecord:
    """Inverse of `RevisionRecord.encode`. FreeholdError keep-record-invalid, keep-record-newer."""
    try:
        document = json.loads(data)
        _check_version(document["format"], document["version"])
        repo, commit, origin = document["repo"], document["commit"], document["origin"]
        return RevisionRecord(
            repo=RepoId(repo["name"], repo["namespace"], RepoKind(repo["kind"])),
            commit=CommitId(commit["sha"]),
            kind=commit["kind"],
            tree_oid=commit["tree"],
            title=commit["title"],
            author=commit["author"],
            authored_at=commit["authored_at"],
            raw=base64.b64decode(commit["raw"], validate=True) if commit["raw"] is not None else None,
            manifest=Manifest(tuple(_entry(row) for row in document["files"])),
            origin=Origin(
                origin["source"],
                origin["locator"],
                origin["taken_at"],
                origin["etag"],
                Digest.parse(origin["evidence"]) if origin["evidence"] else None,
                origin["detail"],
            ),
            lineage=tuple(
                Lineage(e["parent"], Relation(e["relation"]), Evidence(e["evidence"]), e["score"], e["method"])
                for e in document["lineage"]
            ),
        )
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise FreeholdError("keep-record-invalid", f"not a revision record: {error}") from error


def _check_version(name: object, version: int) -> None:
    if name != FORMAT or version < 1:
        raise ValueError("another format")
    if version > VERSION:
        raise FreeholdError("keep-record-newer", f"the record has version {version}; this freehold knows {VERSION}")


def _entry(row: dict[str, Any]) -> FileEntry:
    return FileEntry(row["path"], row["size"], Digest.sha256(row["sha256"]), row["git"], row["lfs"], row["mode"], row["xet"])
