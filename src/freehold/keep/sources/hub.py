"""Any hub that speaks the Hugging Face read API as a source: one revision, pinned by its commit from the first answer on.

Why pinned: a branch may move between two requests, a commit may not; the hashes of the listing then catch an upstream
that changes bytes under one commit. A transfer that breaks off goes on by Range from where the part ends, as long as the tries
bring something. Redirects (to a CDN) are the egress guard's to judge; the token stays with the endpoint.

It reads only, asks for nothing that the listing does not need, and speaks no Xet: plain HTTP is what every hub offers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from freehold.errors import FreeholdError
from freehold.keep.sources.hub_client import HubClient
from freehold.keep.sources.hub_listing import (
    commit_facts,
    commit_of,
    moment_of,
    ref_named,
    sibling_files,
    tree_files,
    upstream_facts,
)
from freehold.keep.sources.source import MAX_FILES, Resolved, SourceFile, checked_files, evidence_among
from freehold.net.egress import Egress, Response
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.progress import Listener, Progress, silent
from freehold.nouns.reference import HubReference
from freehold.vault import Part

#: What a connection that breaks off may cost at most: bytes on their way are handed over in pieces of this size.
_CHUNK = 64 * 1024
_SHA = re.compile(r"[0-9a-f]{40}")
_SHORTEST = 7
_REVISION = re.compile(r"[\w][\w./@+-]{0,199}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: Tries in a row that may bring next to nothing before a transfer is given up.
_BARREN = 4
#: Fewer bytes than this are next to nothing.
_WORTH = 256 * 1024
#: How hubs say that they do not have a route.
_NOT_OFFERED = frozenset(
    {"keep-repo-not-found", "keep-revision-not-found", "keep-file-gone", "keep-forbidden", "keep-gated", "keep-hub-invalid"}
)
_BROKEN_OFF = frozenset({"net-cut", "net-timeout", "net-unreachable"})


class HubSource:
    """`name` overrides the id under which the model is kept; `pause` sleeps that many seconds (for tests)."""

    def __init__(
        self,
        egress: Egress,
        endpoint: str,
        token: str | None = None,
        *,
        name: RepoId | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._hub = HubClient(egress, endpoint, token)
        self._name = name
        self._pause = pause

    def resolve(self, reference: HubReference, listener: Listener = silent) -> Resolved:
        """FreeholdError keep-repo-not-found, keep-revision-not-found, keep-gated, keep-forbidden, keep-withdrawn,
        keep-token-refused, keep-rate-limited, keep-hub-unreachable, keep-hub-invalid, keep-listing-invalid, net-*."""
        listener(Progress("ask", 0, None, "steps", self._hub.host))
        what = f"model {reference.repo}" + ("" if reference.revision == "main" else f" at {reference.revision}")
        if not _REVISION.fullmatch(reference.revision) or ".." in reference.revision:
            raise FreeholdError("keep-revision-not-found", f"no revision can be called {reference.revision!r}")
        info, _ = self._hub.json(self._hub.api(reference.repo, "revision", reference.revision, query="blobs=true"), what)
        sha = commit_of(info, what)
        if _SHA.fullmatch(reference.revision) and reference.revision != sha:
            raise FreeholdError(
                "keep-hub-invalid", f"{self._hub.host} answers with commit {sha} when asked for {reference.revision}"
            )
        files = sibling_files(info, what)
        if files is None:
            files = self._tree(reference.repo, sha, what)
        checked = checked_files(files, f"{self._hub.host} ({what})")
        listing = tuple(replace(f, locator=self._hub.file(reference.repo, sha, f.path)) for f in checked)
        facts = upstream_facts(info)
        told = self._commit(reference.repo, sha)
        title, author, at = told or ("", facts.get("author", ""), moment_of(facts.get("lastModified")) or 0)
        return Resolved(
            source="hf",
            locator=str(HubReference(reference.repo, sha)),
            repo=self._name or reference.repo,
            files=listing,
            title=title,
            at=at,
            author=author,
            commit=CommitId(sha),
            ref=self._ref(reference, sha),
            etag=sha,
            detail={"endpoint": self._hub.endpoint, "asked": str(reference), "revision": reference.revision, "commit": sha}
            | facts,
            evidence=evidence_among(listing),
            place=str(reference.repo),
        )

    def fetch(self, resolved: Resolved, file: SourceFile, part: Part, listener: Listener = silent) -> None:
        """FreeholdError keep-truncated (the part stays), keep-size-mismatch and keep-changed (it is emptied), and those of
        `resolve`."""
        what = f"{resolved.place}/{file.path}"
        if part.size > file.size:
            part.truncate()
        barren = 0
        while part.size < file.size:
            before = part.size
            broken: FreeholdError | None = None
            with self._open(file, part.size, what) as answer:
                try:
                    self._receive(answer, file, part, what, listener)
                except FreeholdError as error:
                    if error.code not in _BROKEN_OFF:
                        raise
                    broken = error
            if part.size >= file.size:
                break
            barren = 0 if part.size - before >= _WORTH else barren + 1
            if barren >= _BARREN:
                message = f"{what} broke off at {part.size} of {file.size} bytes, again and again"
                raise FreeholdError("keep-truncated", message, path=file.path, size=file.size, received=part.size) from broken
            self._pause(min(8.0, 0.25 * 2**barren))
        part.sync()

    def forget(self, resolved: Resolved) -> None:
        """Nothing but the parts was spooled."""

    def _open(self, file: SourceFile, start: int, what: str) -> Response:
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._hub.open(file.locator, headers=headers)
        refused = self._judge(answer, file, what)
        if refused is not None:
            answer.close()
            raise refused
        return answer

    def _judge(self, answer: Response, file: SourceFile, what: str) -> FreeholdError | None:
        """What speaks against reading this body."""
        if answer.status not in (200, 206, 416):
            return self._hub.refusal(answer, what)
        announced = _linked_etag(answer)
        if file.sha256 is None or announced is None or announced == file.sha256.hex:
            return None
        message = f"{self._hub.host} lists {what} with sha256 {file.sha256.hex[:12]}... and serves {announced[:12]}..."
        return FreeholdError("keep-changed", message, path=file.path)

    def _receive(self, answer: Response, file: SourceFile, part: Part, what: str, listener: Listener) -> None:
        skip = _bytes_before(answer, file, part, what)
        for chunk in answer.iter(_CHUNK):
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            piece = memoryview(chunk)[skip:]
            skip = 0
            if part.size + len(piece) > file.size:
                part.truncate()
                raise FreeholdError(
                    "keep-size-mismatch", f"{what} goes on after the {file.size} bytes that were announced", path=file.path
                )
            part.append(piece)
            listener(Progress("fetch", part.size, file.size, item=file.path))

    def _tree(self, repo: RepoId, sha: str, what: str) -> list[SourceFile]:
        url = self._hub.api(repo, "tree", sha, query="recursive=true")
        files: list[SourceFile] = []
        seen = {url}
        while True:
            rows, following = self._hub.json(url, what)
            files += tree_files(rows, what)
            if following is None:
                return files
            url = following.url
            if url in seen or len(files) > MAX_FILES:
                raise FreeholdError("keep-hub-invalid", f"{self._hub.host} does not come to an end listing {what}")
            seen.add(url)

    def _commit(self, repo: RepoId, sha: str) -> tuple[str, str, int] | None:
        """Title, author and date; a hub without a history is no reason to fail."""
        return commit_facts(self._optional(self._hub.api(repo, "commits", sha, query="limit=1"), f"history of {repo}"), sha)

    def _ref(self, reference: HubReference, sha: str) -> str | None:
        """Where a branch or a tag is noted; None for a bare commit, also a shortened one."""
        revision = reference.revision
        if sha.startswith(revision) and len(revision) >= _SHORTEST:
            return None
        if revision.startswith("refs/"):
            return revision.removeprefix("refs/")
        if revision == "main":
            return "heads/main"
        rows = self._optional(self._hub.api(reference.repo, "refs"), f"refs of {reference.repo}")
        return ref_named(rows, revision) or f"heads/{revision}"

    def _optional(self, url: str, what: str) -> Any:
        try:
            return self._hub.json(url, what)[0]
        except FreeholdError as error:
            if error.code in _NOT_OFFERED:
                return None
            raise


def _linked_etag(answer: Response) -> str | None:
    """The sha256 that the hub announces for a large file, on the first answer or after redirects; None if it does not."""
    for headers in (*(hop.headers for hop in answer.history), answer.headers):
        value = (headers.get("X-Linked-Etag") or "").removeprefix("W/").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return value
    return None


def _bytes_before(answer: Response, file: SourceFile, part: Part, what: str) -> int:
    """How many bytes of the body the part has already: all of it where the hub ignores ranges."""
    if answer.status == 200:
        return part.size
    if answer.status == 416:
        part.truncate()
        raise FreeholdError(
            "keep-size-mismatch", f"{what} has fewer than the {file.size} bytes that were announced", path=file.path
        )
    match = _CONTENT_RANGE.fullmatch((answer.headers.get("Content-Range") or "").strip())
    if match is None or int(match[1]) != part.size or match[3] not in ("*", str(file.size)):
        said = answer.headers.get("Content-Range")
        part.truncate()
        raise FreeholdError("keep-changed", f"{what}: asked to go on, the hub sent another range ({said!r})", path=file.path)
    return 0
