"""Taking files in: each missing one is spooled, checked against what its source announced, and published; several at a time.

Why the hash before the lease before the publication: what somebody else may be removing at this moment must be held before it is
counted on. Bytes that are not what was announced are thrown away; bytes that are merely not all there wait for the next
try. The same bytes under two paths come once. It decides nothing about the model, and names nothing in the catalog.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.formats import git
from freehold.keep.sources.source import Resolved, Source, SourceFile
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.progress import Listener, Progress
from freehold.vault import Part, Vault, VaultFile

_CHUNK = 1 << 20
_AUTHOR = "freehold"
_EMAIL = "freehold@localhost"
_OPEN = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """What is in the vault now. `fresh` are the digests that this work brought, `new_bytes` their sizes together."""

    manifest: Manifest
    fresh: frozenset[Digest]
    new_bytes: int


class _StoppedError(Exception):
    """Another file of the same revision failed: no use in going on."""


class _Taking:
    """The shared state of one `take`."""

    def __init__(
        self, vault: Vault, source: Source[Any], resolved: Resolved, hold: Callable[[Iterable[Digest]], None], listener: Listener
    ) -> None:
        self.vault = vault
        self.source = source
        self.resolved = resolved
        self.hold = hold
        self.stop = threading.Event()
        self.fresh: dict[Digest, int] = {}
        self._listener = listener
        self._lock = threading.Lock()
        self._of: dict[str, int] = {}
        self._done = 0
        self._total = resolved.size
        self._stage = "take"

    def passed(self, path: str, done: int, stage: str | None = None) -> None:
        """One file came so far; the listener hears of all of them together."""
        if self.stop.is_set():
            raise _StoppedError
        with self._lock:
            self._done += done - self._of.get(path, 0)
            self._of[path] = done
            self._stage = stage or self._stage
            self._listener(Progress(self._stage, self._done, self._total, item=str(self.resolved.repo)))

    def one(self, file: SourceFile, known: Digest | None) -> tuple[Digest, str]:
        """(sha256, git id of the bytes or of the pointer) of `file`, now in the vault."""
        digest = file.sha256 or known
        if digest is not None:
            self.hold([digest])
            if self.vault.has(digest) and self.vault.size(digest) == file.size:
                self.passed(file.path, file.size)
                return digest, self._git_of_kept(file, digest)
        with self._part(file) as part:
            if not (part.complete and part.size == file.size):
                self.source.fetch(self.resolved, file, part, lambda p: self.passed(file.path, p.done, p.stage))
            failpoint("pull.spooled")
            found, oid = _checked(part, file)
            self.hold([found])
            stored = _publish(self.vault, part, found, file)
            failpoint("pull.published")
        if stored:
            with self._lock:
                self.fresh[found] = file.size
        self.passed(file.path, file.size)
        return found, oid

    @contextmanager
    def _part(self, file: SourceFile) -> Iterator[Part]:
        """The part of `file`; while another process fetches the same bytes, wait for it."""
        while True:
            try:
                part = self.vault.part(file.part_name, expected_size=file.size)
                break
            except FreeholdError as error:
                if error.code != "vault-part-busy":
                    raise
            self.passed(file.path, 0, "wait")
            time.sleep(0.5)
        with part:
            yield part

    def _git_of_kept(self, file: SourceFile, digest: Digest) -> str:
        """The git id of bytes that were kept already: as announced, or computed from them."""
        if file.git_oid is not None:
            return file.git_oid
        if file.lfs:
            return git.blob_oid(git.lfs_pointer(digest.hex, file.size))
        hasher = git.BlobHasher(file.size)
        for piece in self.vault.read(digest):
            hasher.update(piece)
        return hasher.oid()


def take(
    vault: Vault,
    source: Source[Any],
    resolved: Resolved,
    *,
    known: Mapping[str, Digest],
    hold: Callable[[Iterable[Digest]], None],
    parallel: int,
    listener: Listener,
) -> Taken:
    """Bring every file of `resolved` into the vault.

    `known` maps git ids of small files to the SHA-256 under which they are kept already; `hold` protects digests from removal.
    FreeholdError keep-hash-mismatch, vault-disk-full, vault-io, and those of the source's `fetch`.
    """
    hold([f.sha256 for f in resolved.files if f.sha256 is not None])
    taking = _Taking(vault, source, resolved, hold, listener)
    first = {f.part_name: f for f in reversed(resolved.files)}
    found: dict[str, tuple[Digest, str]] = {}
    pool = ThreadPoolExecutor(max(1, parallel), thread_name_prefix="freehold-take")
    futures: dict[str, Future[tuple[Digest, str]]] = {}
    try:
        for name, file in sorted(first.items(), key=lambda item: item[1].path):
            futures[name] = pool.submit(taking.one, file, known.get(file.git_oid or ""))
        wait(futures.values(), return_when=FIRST_EXCEPTION)
        found = {name: future.result() for name, future in _failed_first(futures).items()}
    finally:
        taking.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    entries = tuple(_entry(file, *found[file.part_name]) for file in resolved.files)
    return Taken(Manifest(entries), frozenset(taking.fresh), sum(taking.fresh.values()))


def native_commit(manifest: Manifest, title: str, at: int, parents: tuple[str, ...] = ()) -> tuple[str, str, bytes]:
    """(commit id, tree id, bytes of the commit object) of a listing that has no commit of its own; `at` in UTC microseconds."""
    tree = tree_of(manifest)
    who = git.Signature(_AUTHOR, _EMAIL, at)
    raw = git.commit_bytes(tree, parents, who, who, title)
    return git.object_oid("commit", raw), tree, raw


def tree_of(manifest: Manifest) -> str:
    """The id of the root tree."""
    return git.build_trees((e.path, e.mode, e.git_oid) for e in manifest).root


class KeptFiles(Mapping[str, "KeptFile"]):
    """The files of a manifest for reading by position; at most 64 are open at the same time. Close it at the end."""

    def __init__(self, vault: Vault, manifest: Manifest) -> None:
        self._vault = vault
        self._files = {e.path: KeptFile(self, e.sha256, e.size) for e in manifest}
        self._open: OrderedDict[Digest, VaultFile] = OrderedDict()

    def __getitem__(self, path: str) -> KeptFile:
        return self._files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def opened(self, digest: Digest) -> VaultFile:
        if digest not in self._open:
            self._open[digest] = self._vault.open(digest)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(digest)
        return self._open[digest]

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class KeptFile:
    """One of them, as readers of formats take it; opened when it is first read."""

    def __init__(self, files: KeptFiles, digest: Digest, size: int) -> None:
        self._files = files
        self.digest = digest
        self.size = size

    def pread(self, offset: int, length: int, /) -> bytes:
        return self._files.opened(self.digest).pread(offset, length)


def _failed_first(futures: dict[str, Future[tuple[Digest, str]]]) -> dict[str, Future[tuple[Digest, str]]]:
    """The futures, those that failed by themselves before those that were stopped for it."""

    def rank(item: tuple[str, Future[tuple[Digest, str]]]) -> int:
        future = item[1]
        error = future.exception() if future.done() and not future.cancelled() else None
        return 1 if error is None or isinstance(error, _StoppedError) else 0

    return dict(sorted(futures.items(), key=rank))


def _checked(part: Part, file: SourceFile) -> tuple[Digest, str]:
    """SHA-256 and git id of the spooled bytes, which must be those announced; a part with other bytes is dropped."""
    if file.sha256 is not None and file.lfs:
        return file.sha256, file.git_oid or git.blob_oid(git.lfs_pointer(file.sha256.hex, file.size))  # hashed when published
    sha256, hasher = hashlib.sha256(), git.BlobHasher(part.size)
    for offset in range(0, part.size, _CHUNK):
        piece = part.pread(offset, _CHUNK)
        sha256.update(piece)
        hasher.update(piece)
    digest, oid = Digest.sha256(sha256.hexdigest()), hasher.oid()
    wrong = part.size != file.size or file.sha256 not in (None, digest) or (not file.lfs and file.git_oid not in (None, oid))
    if wrong:
        part.discard()
        announced = file.sha256 or f"git id {file.git_oid}"
        message = f"{file.path} arrived as {digest} ({part.size} bytes), announced was {announced} ({file.size} bytes)"
        raise FreeholdError("keep-hash-mismatch", message, path=file.path)
    if file.lfs:
        oid = file.git_oid or git.blob_oid(git.lfs_pointer(digest.hex, file.size))
    return digest, oid


def _publish(vault: Vault, part: Part, digest: Digest, file: SourceFile) -> bool:
    """Whether the vault did not hold the bytes before."""
    try:
        return vault.publish(part, expected=digest).fresh
    except FreeholdError as error:
        if error.code != "vault-hash-mismatch":
            raise
        message = f"{file.path} arrived as {error.context.get('found')}, announced was {digest}"
        raise FreeholdError("keep-hash-mismatch", message, path=file.path) from error


def _entry(file: SourceFile, digest: Digest, oid: str) -> FileEntry:
    return FileEntry(file.path, file.size, digest, oid, file.lfs, file.mode, file.xet_hash)
