"""Publication: bytes enter the vault in one pass of hashing, become durable, and only then visible, by one transaction.

The order is the whole point (docs/design/vault-format.md, "Order of writing"): payload, sidecar, commit, and the source is
dropped last, so that a crash at any step costs at most another pass. The same bytes may be published by several processes at
once. It does not fetch, and does not judge what it stores.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.nouns.digest import Digest
from freehold.nouns.progress import Listener, Progress, silent
from freehold.vault import index
from freehold.vault.disk import disk_errors, require_room
from freehold.vault.ground import Ground
from freehold.vault.hashing import Fill, Hashes, hash_stream
from freehold.vault.part import Part, part_path
from freehold.vault.sidecar import Table

#: Parts with this prefix are copies under way; an abandoned one is worth nothing.
COPY_PREFIX = "copy-"


@dataclass(frozen=True, slots=True)
class Stored:
    """A published blob. `git_sha1` is git's blob id if it was asked for; `fresh` tells a new blob from one already held."""

    sha256: Digest
    size: int
    object_id: Digest
    git_sha1: Digest | None = None
    fresh: bool = True


def publish_part(
    ground: Ground, part: Part, expected: Digest | None, *, git: bool = False, listener: Listener = silent
) -> Stored:
    """Publish a part and drop it. A part with a wrong hash is dropped as well: no continuation could make it right."""
    hashes = _hash_file(part.path, git=git, listener=listener)
    try:
        check_expected(hashes, expected, part.path.name)
    except FreeholdError:
        part.discard()
        raise
    fresh = enter(ground, hashes, lambda key: ground.store.put_file(key, part.path, replace=True))
    part.discard()
    return _stored(hashes, fresh)


def publish_path(
    ground: Ground,
    path: Path,
    expected: Digest | None,
    *,
    move: bool,
    reserve: int,
    git: bool = False,
    listener: Listener = silent,
) -> Stored:
    """Publish a file of the caller. With `move` it is gone afterwards; if anything fails it stays as it is."""
    with disk_errors(f"reading {path}"):
        found = path.lstat()
        linkable = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_dev == ground.spool.stat().st_dev
        if not stat.S_ISREG(path.stat().st_mode):
            raise FreeholdError("vault-io", f"{path} is not a regular file", hint="Only regular files can be stored.", path=path)
    if move and linkable:
        hashes = _hash_file(path, git=git, listener=listener)
        check_expected(hashes, expected, str(path))
        stored = _stored(hashes, enter(ground, hashes, lambda key: ground.store.put_file(key, path, replace=True)))
    else:
        stored = _publish_copy(ground, path, expected, reserve=reserve, git=git, listener=listener)
    if move:
        with disk_errors(f"removing {path}"):
            path.unlink()
    return stored


def publish_bytes(ground: Ground, data: bytes, expected: Digest | None, *, reserve: int, git: bool = False) -> Stored:
    """Publish what is in memory."""
    require_room(ground.spool, len(data), reserve, "storing")
    hashes = hash_stream(_fill_from(data), len(data), git=git)
    check_expected(hashes, expected, "the bytes")
    return _stored(hashes, enter(ground, hashes, lambda key: ground.store.put_bytes(key, data, replace=True)))


def check_expected(hashes: Hashes, expected: Digest | None, what: str) -> None:
    """Raises vault-hash-mismatch."""
    if expected is not None and hashes.sha256 != expected:
        message = f"{what} has {hashes.sha256}, expected {expected}"
        raise FreeholdError("vault-hash-mismatch", message, expected=expected, found=hashes.sha256, size=hashes.size)


def enter(ground: Ground, hashes: Hashes, put_payload: Callable[[str], object]) -> bool:
    """Make payload, sidecar and index row of hashed bytes durable; False if the vault holds them already.

    What lies under the keys without a live row (an orphan of a crash, a damaged file) is replaced, never trusted.
    """
    sha256 = hashes.sha256
    with disk_errors(f"storing {sha256}"), ground.lock(sha256):
        with ground.database.read() as tx:
            container = index.find_container(tx, sha256)
        if container is not None and container.state == index.LIVE and _whole(ground, container):
            return False
        put_payload(index.payload_key(sha256))
        failpoint("vault.payload-stored")
        table = Table.of_loose_file(hashes)
        encoded = table.encode()
        ground.store.put_bytes(index.table_key(sha256), encoded, replace=True)
        failpoint("vault.sidecar-stored")
        now = ground.clock()
        with ground.database.write() as tx:
            index.insert(tx, table, len(encoded), now=now, verified_at=now)
    return True


def hash_payload(
    fd: int,
    size: int,
    *,
    git: bool = False,
    sink: Callable[[memoryview], None] | None = None,
    passed: Callable[[int], None] | None = None,
) -> Hashes:
    """One pass over an open file of `size` bytes."""

    def fill(buffer: memoryview) -> int:
        return os.readv(fd, [buffer])

    return hash_stream(fill, size, git=git, sink=sink, passed=passed)


def _hash_file(path: Path, *, git: bool, listener: Listener, sink: Callable[[memoryview], None] | None = None) -> Hashes:
    with disk_errors(f"reading {path.name}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            hashes = hash_payload(
                fd, size, git=git, sink=sink, passed=lambda done: listener(Progress("store", done, size, item=path.name))
            )
        finally:
            os.close(fd)
        failpoint("vault.hashed")
        return hashes


def _publish_copy(ground: Ground, path: Path, expected: Digest | None, *, reserve: int, git: bool, listener: Listener) -> Stored:
    """Copy into the spool while hashing: what others may still write to is never shared with the vault."""
    with disk_errors(f"reading {path}"):
        size = path.stat().st_size
    copy = part_path(ground.spool, f"{COPY_PREFIX}{uuid.uuid4().hex}")
    with Part(copy, reserve_bytes=reserve, expected_size=size) as part:
        try:
            hashes = _hash_file(path, git=git, listener=listener, sink=part.append)
            check_expected(hashes, expected, str(path))
            fresh = enter(ground, hashes, lambda key: ground.store.put_file(key, part.path, replace=True))
        finally:
            part.discard()
    return _stored(hashes, fresh)


def _whole(ground: Ground, container: index.Container) -> bool:
    try:
        same = ground.store.size(container.payload_key) == container.payload_length
    except FileNotFoundError:
        return False
    return same and ground.store.exists(container.table_key)


def _stored(hashes: Hashes, fresh: bool) -> Stored:
    return Stored(hashes.sha256, hashes.size, hashes.object_id, hashes.git_sha1, fresh)


def _fill_from(data: bytes) -> Fill:
    view = memoryview(data)
    at = 0

    def fill(buffer: memoryview) -> int:
        nonlocal at
        taken = view[at : at + len(buffer)]
        buffer[: len(taken)] = taken
        at += len(taken)
        return len(taken)

    return fill
