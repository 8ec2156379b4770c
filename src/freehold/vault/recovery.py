"""Recovery: what crashes leave behind is adopted or swept, and a lost index is rebuilt from the sidecars.

None of it is needed to start: readers see only committed blobs. It saves room, and saves the work of a publication that died
just before its commit. An adopted blob has no date of verification, so its blocks are checked on every read until it is verified.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.nouns.digest import Digest
from freehold.nouns.progress import Listener, Progress, silent
from freehold.vault import index
from freehold.vault.disk import disk_errors
from freehold.vault.ground import Ground
from freehold.vault.part import SUFFIX
from freehold.vault.publication import COPY_PREFIX
from freehold.vault.scrub import hash_reading
from freehold.vault.sidecar import Table


@dataclass(frozen=True, slots=True)
class SweepReport:
    """`adopted` blobs were whole but not indexed; `buried` removals were finished; `removed` counts leftovers deleted."""

    adopted: tuple[Digest, ...]
    buried: tuple[Digest, ...]
    removed: int


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """`files` were indexed; `mended` of them got a new sidecar; `lost` lists payloads that are not what their name says."""

    files: int
    mended: tuple[Digest, ...]
    lost: tuple[Digest, ...]


def sweep(ground: Ground, grace_us: int) -> SweepReport:
    """Finish removals, adopt whole orphans, delete leftovers older than `grace_us` by the clock of the file system."""
    horizon = ground.clock() - grace_us
    buried = finish_removals(ground)
    adopted: list[Digest] = []
    removed = 0
    for sha256, since in _orphans(ground):
        with disk_errors(f"adopting {sha256}"), ground.lock(sha256):
            with ground.database.read() as tx:
                if index.find_container(tx, sha256) is not None:
                    continue
            table, _ = _table_or_proof(ground, sha256)
            if table is not None:
                with ground.database.write() as tx:
                    index.insert(tx, table, len(table.encode()), now=ground.clock(), verified_at=None)
                adopted.append(sha256)
            elif since <= horizon:
                removed += ground.store.delete(index.table_key(sha256)) + ground.store.delete(index.payload_key(sha256))
    with disk_errors("sweeping the vault"):
        removed += ground.store.sweep(horizon)
        removed += sum(_sweep_part(path, horizon) for path in sorted(ground.spool.glob(f"*{SUFFIX}")))
    return SweepReport(tuple(adopted), tuple(buried), removed)


def finish_removals(ground: Ground) -> list[Digest]:
    """Unlink what tombstones stand for, and drop them."""
    with ground.database.read() as tx:
        tombstones = index.containers(tx, index.TOMBSTONE)
    return [c.sha256 for c in tombstones if unlink_buried(ground, c.sha256)]


def unlink_buried(ground: Ground, sha256: Digest) -> bool:
    """The second half of a removal: sidecar, payload, then the tombstone itself. False if it was published anew meanwhile."""
    with disk_errors(f"removing {sha256}"), ground.lock(sha256):
        failpoint("vault.buried")
        with ground.database.read() as tx:
            container = index.find_container(tx, sha256)
        if container is None or container.state != index.TOMBSTONE:
            return False
        ground.store.delete(container.table_key)
        failpoint("vault.sidecar-unlinked")
        ground.store.delete(container.payload_key)
        failpoint("vault.payload-unlinked")
        with ground.database.write() as tx:
            index.forget(tx, container)
    return True


def rebuild(ground: Ground, listener: Listener = silent) -> RebuildReport:
    """Replace the whole index by what the store holds, in one transaction. Leases stay."""
    finish_removals(ground)
    with disk_errors("reading the vault"):
        names = sorted(_payload_names(ground))
    mended: list[Digest] = []
    lost: list[Digest] = []
    with disk_errors("rebuilding the index"), ground.database.write() as tx:
        index.clear(tx)
        for number, sha256 in enumerate(names, 1):
            table, written = _table_or_proof(ground, sha256)
            if table is None:
                lost.append(sha256)
            else:
                index.insert(tx, table, len(table.encode()), now=ground.clock(), verified_at=None)
                if written:
                    mended.append(sha256)
            listener(Progress("rebuild", number, len(names), unit="files", item=str(sha256)))
    return RebuildReport(len(names) - len(lost), tuple(mended), tuple(lost))


def _table_or_proof(ground: Ground, sha256: Digest) -> tuple[Table | None, bool]:
    """The table of a payload that has the right length; written anew (True) if the payload proves itself; else None."""
    key = index.payload_key(sha256)
    try:
        table = ground.table_of(sha256)
        if ground.store.size(key) == table.payload_length:
            return table, False
    except FileNotFoundError:
        return None, False
    except FreeholdError as error:
        if error.code != "vault-sidecar-invalid":
            raise
    try:
        with ground.store.open(key) as reading:
            hashes = hash_reading(reading)
    except OSError:
        return None, False
    if hashes.sha256 != sha256:
        return None, False
    table = Table.of_loose_file(hashes)
    ground.store.put_bytes(index.table_key(sha256), table.encode(), replace=True)
    failpoint("vault.sidecar-mended")
    return table, True


def _payload_names(ground: Ground) -> Iterator[Digest]:
    """Every digest under which the store keeps a loose payload."""
    for item in ground.store.list("loose/"):
        name = item.key.rpartition("/")[2]
        if "." not in name and len(name) == 64:
            yield Digest.sha256(name)


def _orphans(ground: Ground) -> list[tuple[Digest, int]]:
    """Payloads and sidecars without a row, with the moment since which the younger of the two has been there."""
    with disk_errors("reading the vault"):
        since: dict[str, int] = {}
        for item in ground.store.list("loose/"):
            name = item.key.rpartition("/")[2].partition(".")[0]
            if len(name) == 64:
                since[name] = max(item.since, since.get(name, 0))
    with ground.database.read() as tx:
        known = {c.sha256.hex for c in index.containers(tx, index.LIVE, index.QUARANTINED, index.TOMBSTONE)}
    return sorted((Digest.sha256(name), at) for name, at in since.items() if name not in known)


def _sweep_part(path: Path, horizon: int) -> int:
    """Remove a part that the vault shares already, or an abandoned copy; never one that somebody holds or may continue."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        abandoned = path.name.startswith(COPY_PREFIX) and found.st_ctime_ns // 1000 <= horizon
        if found.st_nlink > 1 or abandoned:
            path.unlink(missing_ok=True)
            return 1
    except BlockingIOError:
        return 0
    finally:
        os.close(fd)
    return 0
