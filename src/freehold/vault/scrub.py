"""Verification: read containers whole, hash everything, say exactly what is bad, and delete nothing.

A good container gets a new date of verification (what `read_policy = scrubbed` trusts); a bad one is quarantined with its bad
blocks noted, and lives again when it is found good or published anew. A sidecar that is lost or damaged beside a whole payload is
written again, since the payload proves it: its SHA-256 is its name. It does not fetch replacements: a flow does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.nouns.digest import Digest
from freehold.nouns.progress import Listener, Progress, silent
from freehold.vault import index
from freehold.vault.disk import disk_errors
from freehold.vault.ground import Ground
from freehold.vault.hashing import BLOCK_SIZE, HASH_SIZE, Hashes, block_count, block_hash, hash_stream
from freehold.vault.index import Container
from freehold.vault.sidecar import Table
from freehold.vault.stores.store import Reading

#: In `damage`, the number that stands for the container as a whole.
WHOLE = -1


@dataclass(frozen=True, slots=True)
class BadBlock:
    """Block `index` at byte `offset` of the blob: its hash does not match, or the disk cannot read it (`unreadable`)."""

    index: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with one blob. `reason`: blocks | missing | length | sidecar | sha256; `blocks` where they are known."""

    sha256: Digest
    reason: str
    blocks: tuple[BadBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`checked` blobs and their `bytes` were read; `skipped` were verified recently; `mended` lists rewritten sidecars."""

    checked: int
    bytes: int
    skipped: int
    mended: tuple[Digest, ...]
    damage: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        return not self.damage


def verify(ground: Ground, only: Digest | None, max_age_us: int | None, listener: Listener = silent) -> VerifyReport:
    """Verify one blob, or all that were not verified within `max_age_us`. Raises vault-missing if `only` is not held."""
    with ground.database.read() as tx:
        found = index.containers(tx, index.LIVE, index.QUARANTINED) if only is None else [index.find_container(tx, only)]
    held = [c for c in found if c is not None and c.state != index.TOMBSTONE]
    if only is not None and not held:
        raise FreeholdError("vault-missing", f"{only} is not in the vault", sha256=only)
    now = ground.clock()
    due = [c for c in held if not _recent(c, now, max_age_us)]
    total = sum(c.payload_length for c in due)
    done = 0
    mended: list[Digest] = []
    damage: list[Damage] = []
    for container in due:
        base, name = done, str(container.sha256)

        def passed(count: int, base: int = base, name: str = name) -> None:
            listener(Progress("verify", base + count, total, item=name))

        result = verify_container(ground, container, passed)
        if isinstance(result, Damage):
            damage.append(result)
        elif result:
            mended.append(container.sha256)
        done += container.payload_length
        passed(container.payload_length)
    return VerifyReport(len(due), total, len(held) - len(due), tuple(mended), tuple(damage))


def verify_container(ground: Ground, container: Container, passed: Callable[[int], None] | None = None) -> Damage | bool:
    """Read and judge one container and record the result; True if its sidecar had to be written again."""
    mended = False
    table: Table | None = None
    try:
        table = ground.table_of(container.sha256)
    except FreeholdError as error:
        if error.code not in ("vault-sidecar-invalid", "vault-io"):
            raise
    damage, hashes = _examine(ground, container, table, passed)
    if damage is not None:
        return damage if _record_damage(ground, container, damage) else False
    if table is None and hashes is not None:
        with disk_errors(f"writing the table of {container.sha256}"), ground.lock(container.sha256):
            ground.store.put_bytes(container.table_key, Table.of_loose_file(hashes).encode(), replace=True)
            failpoint("vault.sidecar-mended")
        mended = True
    with disk_errors(f"recording the verification of {container.sha256}"), ground.database.write() as tx:
        index.mark_verified(tx, container, ground.clock())
    return mended


def _examine(
    ground: Ground, container: Container, table: Table | None, passed: Callable[[int], None] | None
) -> tuple[Damage | None, Hashes | None]:
    """Damage, or the hashes of a payload without any."""
    sha256 = container.sha256
    try:
        reading = ground.store.open(container.payload_key)
    except FileNotFoundError:
        return Damage(sha256, "missing"), None
    except OSError:
        return Damage(sha256, "unreadable"), None
    with reading:
        try:
            hashes = hash_reading(reading, passed)
        except OSError:
            return Damage(sha256, "blocks", _walk(reading, container, table)), None
    if hashes.sha256 == sha256:
        return None, hashes
    if table is None:
        return Damage(sha256, "sidecar"), None
    expected = table.objects[0].blocks
    bad = tuple(
        BadBlock(i, i * BLOCK_SIZE, "mismatch")
        for i in range(block_count(container.payload_length))
        if hashes.blocks[i * HASH_SIZE : (i + 1) * HASH_SIZE] != expected[i * HASH_SIZE : (i + 1) * HASH_SIZE]
    )
    return Damage(sha256, "length" if hashes.size != container.payload_length else "blocks" if bad else "sha256", bad), None


def hash_reading(reading: Reading, passed: Callable[[int], None] | None = None) -> Hashes:
    """One pass over an open payload; OSError as the disk gives it."""
    at = 0

    def fill(buffer: memoryview) -> int:
        nonlocal at
        data = reading.pread(at, len(buffer))
        buffer[: len(data)] = data
        at += len(data)
        return len(data)

    return hash_stream(fill, reading.size, passed=passed)


def _walk(reading: Reading, container: Container, table: Table | None) -> tuple[BadBlock, ...]:
    """Block by block, where the disk fails to read some."""
    bad = []
    for number in range(block_count(container.payload_length)):
        start = number * BLOCK_SIZE
        try:
            block = reading.pread(start, min(BLOCK_SIZE, container.payload_length - start))
        except OSError:
            bad.append(BadBlock(number, start, "unreadable"))
        else:
            if table is not None and block_hash(block) != table.objects[0].block(number):
                bad.append(BadBlock(number, start, "mismatch"))
    return tuple(bad)


def _record_damage(ground: Ground, container: Container, damage: Damage) -> bool:
    """Quarantine, unless the blob was removed or published anew while it was read; False then."""
    blocks = [(b.index, b.reason) for b in damage.blocks] or [(WHOLE, damage.reason)]
    with disk_errors(f"recording the damage of {container.sha256}"), ground.lock(container.sha256), ground.database.write() as tx:
        present = index.find_container(tx, container.sha256)
        if present is None or present.state == index.TOMBSTONE or present.verified_at != container.verified_at:
            return False
        index.mark_damaged(tx, container, blocks, ground.clock())
    return True


def _recent(container: Container, now: int, max_age_us: int | None) -> bool:
    if max_age_us is None or container.verified_at is None or container.state != index.LIVE:
        return False
    return now - container.verified_at <= max_age_us
