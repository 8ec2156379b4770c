"""Reading what is kept, as the hub's door asks for it: a revision, its listing, one file, a range of its bytes.

Every function authorises first, then asks the catalog in one transaction. A repository that the caller may not see is
absent; a revision that was not admitted is refused with the reason; an unknown one is first looked for upstream, if the
house has upstreams. Reading writes nothing: no database row, no count, no date.

It does not know HTTP: ETags, ranges and status codes are the door's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from sqlalchemy import Connection

from freehold.catalog import facts, repos, revisions
from freehold.catalog.repos import Repo
from freehold.catalog.revisions import Ref, Revision
from freehold.errors import FreeholdError
from freehold.flows.models import FACTS, LICENSE, require_visible, visible, visible_repo
from freehold.flows.parts import Parts
from freehold.flows.shelf import Listing
from freehold.formats.git import FOLDER, TreeEntry, lfs_pointer, tree_oid
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.files import FileEntry, FileExtent, Manifest
from freehold.nouns.ids import RepoId, RepoKind
from freehold.nouns.origin import Admission, Lineage

MAIN = "main"


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """One revision of one repository. `facts` and `license` as recorded when it was taken in, empty if they were not."""

    repo: Repo
    revision: Revision
    manifest: Manifest
    facts: dict[str, Any]
    license: dict[str, Any]
    lineage: tuple[Lineage, ...]


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that the caller may read: proof that the question was asked. `id` is the repository's name today."""

    id: RepoId
    commit: str
    entry: FileEntry


@dataclass(frozen=True, slots=True)
class OpenRange:
    """Bytes of an open file from `offset`, as they lie; close `file` when they are sent."""

    file: BinaryIO
    offset: int
    length: int


def repo_info(parts: Parts, caller: Caller, repo_id: RepoId, revision: str | None = None) -> RepoInfo:
    """What is known of a revision. Raises catalog-repo-not-found, catalog-revision-not-found, hub-quarantined."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo, found = _admitted(tx, caller, repo_id, revision or MAIN)
        return _info(tx, repo, found)


def list_repos(
    parts: Parts, caller: Caller, kind: RepoKind = RepoKind.MODEL, *, search: str = "", author: str = ""
) -> list[Repo]:
    """Repositories that the caller may see and that have a main branch, by name; `search` matches inside the id."""
    caller.require(Scope.READ)
    needle, owner = search.lower(), author.lower()
    with parts.catalog.read() as tx:
        return [
            repo
            for repo in repos.list_repos(tx, kind)
            if visible(caller, repo)
            and needle in str(repo.id).lower()
            and (not owner or (repo.id.namespace or "").lower() == owner)
        ]


def describe_repos(parts: Parts, caller: Caller, some: list[Repo]) -> list[RepoInfo]:
    """The main revision of each of `some`; those without one, or not admitted, are left out."""
    caller.require(Scope.READ)
    found = []
    with parts.catalog.read() as tx:
        for repo in some:
            try:
                found.append(_info(tx, *_admitted(tx, caller, repo.id, MAIN)))
            except FreeholdError as error:
                if error.code not in ("catalog-repo-not-found", "catalog-revision-not-found", "hub-quarantined"):
                    raise
    return found


def refs(parts: Parts, caller: Caller, repo_id: RepoId) -> list[Ref]:
    """Branches, tags and pull requests of a repository."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        return revisions.list_refs(tx, visible_repo(tx, caller, repo_id))


def commits(parts: Parts, caller: Caller, repo_id: RepoId, revision: str) -> list[Revision]:
    """The revision and those that were taken in before it, newest first."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo, found = _admitted(tx, caller, repo_id, revision)
        return [found, *_older(tx, repo, found)]


def last_commits(parts: Parts, caller: Caller, repo_id: RepoId, revision: str, paths: list[str]) -> dict[str, Revision]:
    """For each path the oldest revision that has it as it now is, without a gap."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo, found = _admitted(tx, caller, repo_id, revision)
        now = {e.path: e.git_oid for e in revisions.get_manifest(tx, found)}
        since = {path: found for path in paths if path in now}
        open_ = set(since)
        for older in _older(tx, repo, found):
            then = {e.path: e.git_oid for e in revisions.get_manifest(tx, older)}
            open_ = {path for path in open_ if then.get(path) == now[path]}
            since |= dict.fromkeys(open_, older)
    return since


def folder_ids(manifest: Manifest) -> dict[str, str]:
    """Every folder of a listing with the id of its git tree; the root stands under the empty path."""
    below: dict[str, list[TreeEntry]] = {"": []}
    for entry in manifest:
        parent, _, name = entry.path.rpartition("/")
        for depth in range(parent.count("/") + 1 if parent else 0):
            below.setdefault("/".join(parent.split("/")[: depth + 1]), [])
        below[parent].append(TreeEntry(entry.mode, name, entry.git_oid))
    ids: dict[str, str] = {}
    for path in sorted(below.keys() - {""}, key=lambda p: p.count("/"), reverse=True):
        ids[path] = tree_oid(below[path])
        parent, _, name = path.rpartition("/")
        below[parent].append(TreeEntry(FOLDER, name, ids[path]))
    return ids | {"": tree_oid(below[""])}


def pointer_size(entry: FileEntry) -> int:
    """Bytes of the pointer that git holds in the place of a large file."""
    return len(lfs_pointer(entry.sha256.hex, entry.size))


def open_file(parts: Parts, caller: Caller, repo_id: RepoId, revision: str, path: str) -> OpenFile:
    """The file at `path`. Raises also catalog-entry-not-found (with the commit that lacks it) and hub-gated."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo, found = _admitted(tx, caller, repo_id, revision)
        _require_ungated(caller, repo)
        try:
            entry = revisions.find_entry(tx, found, path)
        except FreeholdError as error:
            error.context["commit"] = found.commit.sha
            raise
    return OpenFile(repo.id, found.commit.sha, entry)


def read_listing(parts: Parts, caller: Caller, repo_id: RepoId, revision: str) -> Listing:
    """A revision with all its files, for the shelf. It may be one that nobody is given: `open_listed` decides."""
    caller.require(Scope.READ)
    with parts.catalog.read() as tx:
        repo = visible_repo(tx, caller, repo_id)
        found = revisions.resolve(tx, repo, revision)
        files = {entry.path: entry for entry in revisions.get_manifest(tx, found)}
        return Listing(repo, found, *facts.decision(tx, found), files)


def open_listed(caller: Caller, repo_id: RepoId, listing: Listing, path: str) -> OpenFile:
    """`open_file` from a listing on the shelf, without a look at the catalog. Raises the same."""
    caller.require(Scope.READ)
    require_visible(caller, listing.repo, repo_id)
    _require_admitted(listing.repo, listing.revision, listing.state, listing.reason)
    _require_ungated(caller, listing.repo)
    entry = listing.files.get(path)
    if entry is None:
        message, commit = f"the revision has no file {path!r}", listing.revision.commit.sha
        raise FreeholdError("catalog-entry-not-found", message, path=path, commit=commit)
    return OpenFile(listing.repo.id, listing.revision.commit.sha, entry)


def open_bytes(parts: Parts, opened: OpenFile, offset: int, length: int) -> list[OpenRange | Iterator[bytes]]:
    """The bytes of a range in order: files to send as they lie, and iterators over decoded, authenticated bytes.

    What can fail before the first byte fails here. Raises vault-missing, vault-corrupt-block, vault-io."""
    if length == 0:
        return []
    pieces: list[OpenRange | Iterator[bytes]] = []
    try:
        for extent in parts.vault.plan(opened.entry.sha256, offset, length):
            if isinstance(extent, FileExtent):
                pieces.append(OpenRange(extent.path.open("rb", buffering=0), extent.offset, extent.length))
            else:
                pieces.append(_begun(parts.vault.decode(extent)))
    except OSError as error:
        close_bytes(pieces)
        raise FreeholdError("vault-io", f"cannot open {opened.entry.path}: {error.strerror}", path=opened.entry.path) from error
    except BaseException:
        close_bytes(pieces)
        raise
    return pieces


def read_bytes(parts: Parts, opened: OpenFile, offset: int, length: int) -> bytes:
    """The bytes of a small range at once. Raises as `open_bytes`."""
    return b"".join(parts.vault.read(opened.entry.sha256, offset, length)) if length else b""


def close_bytes(pieces: list[OpenRange | Iterator[bytes]]) -> None:
    """Let go of what `open_bytes` opened."""
    for piece in pieces:
        if isinstance(piece, OpenRange):
            piece.file.close()
        else:
            piece.close()  # type: ignore[attr-defined]


def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, the first piece read already: a damaged first block is an error before anything is sent."""
    first = next(chunks, b"")

    def whole() -> Iterator[bytes]:
        try:
            yield first
            yield from chunks
        finally:
            chunks.close()  # type: ignore[attr-defined]

    return whole()


def _admitted(tx: Connection, caller: Caller, repo_id: RepoId, name: str) -> tuple[Repo, Revision]:
    repo = visible_repo(tx, caller, repo_id)
    found = revisions.resolve(tx, repo, name)
    _require_admitted(repo, found, *facts.decision(tx, found))
    return repo, found


def _require_admitted(repo: Repo, found: Revision, state: Admission, reason: str) -> None:
    if state is not Admission.ADMITTED:
        message = f"{repo.id} at {found.commit.sha[:12]} is {state}" + (f": {reason}" if reason else "")
        raise FreeholdError("hub-quarantined", message, repo=str(repo.id), revision=found.commit.sha)


def _require_ungated(caller: Caller, repo: Repo) -> None:
    if repo.gated and caller.principal == "anonymous":
        raise FreeholdError("hub-gated", f"the files of {repo.id} are given only to callers with a key", repo=str(repo.id))


def _info(tx: Connection, repo: Repo, found: Revision) -> RepoInfo:
    recorded = {f.kind: f.detail for f in facts.list_findings(tx, f"commit:{found.commit}")}
    manifest = revisions.get_manifest(tx, found)
    lineage = tuple(facts.list_lineage(tx, found))
    return RepoInfo(repo, found, manifest, recorded.get(FACTS, {}), recorded.get(LICENSE, {}), lineage)


def _older(tx: Connection, repo: Repo, found: Revision) -> list[Revision]:
    listed = revisions.list_revisions(tx, repo)
    place = next(i for i, revision in enumerate(listed) if revision.row == found.row)
    return listed[place + 1 :]
