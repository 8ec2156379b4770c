"""The vault: bytes by digest, kept whole, given out only as what they were.

One class, because it holds state: a store for the bytes, an index of where they lie, a spool of unfinished files. It answers
two questions - is it here, and what are its bytes - and keeps the promises of docs/design/vault-format.md: what a reader sees
is complete and durable, a bad block is an error and never data, a crash leaves only orphans. It does not know names, models
or who may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import DecodeExtent, Extent, FileExtent
from freehold.nouns.moment import Clock
from freehold.nouns.progress import Listener, silent
from freehold.vault import index, publication, recovery, scrub
from freehold.vault.disk import as_vault_error, disk_errors, require_room
from freehold.vault.ground import Ground
from freehold.vault.index import Container, Placed
from freehold.vault.part import Part, part_path
from freehold.vault.publication import Stored
from freehold.vault.reading import VaultFile
from freehold.vault.recovery import RebuildReport, SweepReport
from freehold.vault.scrub import Damage, VerifyReport
from freehold.vault.stores.store import BlobStore

ReadPolicy = Literal["verify", "scrubbed"]
#: Thirty days: how long a verification is trusted under `scrubbed`.
MAX_AGE_US = 30 * 24 * 3600 * 1_000_000
#: One day: how old a leftover must be before it is swept.
GRACE_US = 24 * 3600 * 1_000_000
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Stats:
    """`plain_bytes` is the sum of file sizes, `stored_bytes` what they take with tables; `quarantined` counts containers."""

    files: int
    plain_bytes: int
    objects: int
    containers: int
    stored_bytes: int
    quarantined: int


class Vault:
    """`reserve_bytes` stay free on the spool's disk: no write of payload bytes begins that would leave less. Thread-safe."""

    def __init__(
        self,
        store: BlobStore,
        database: Database,
        spool: Path,
        clock: Clock,
        *,
        read_policy: ReadPolicy = "scrubbed",
        max_age_us: int = MAX_AGE_US,
        reserve_bytes: int = 0,
    ) -> None:
        self.read_policy = read_policy
        self.max_age_us = max_age_us
        self.reserve_bytes = reserve_bytes
        self._ground = Ground(store, database, spool, clock)
        with disk_errors(f"opening the spool {spool}"):
            spool.mkdir(parents=True, exist_ok=True)

    # What is here

    def has(self, sha256: Digest) -> bool:
        """Whether the blob is held and not known to be damaged. False for a quarantined one: publishing it again heals it."""
        with self._ground.database.read() as tx:
            found = index.locate(tx, sha256)
        return found is not None and all(run.container.state == index.LIVE for run in found[1])

    def size(self, sha256: Digest) -> int:
        """Bytes of the blob. Raises vault-missing."""
        with self._ground.database.read() as tx:
            size = index.find_size(tx, sha256)
        if size is None:
            raise _missing(sha256)
        return size

    def digests(self) -> Iterator[Digest]:
        """All blobs in order, quarantined ones too; pages are read one by one, so that no transaction stays open."""
        after = ""
        while True:
            with self._ground.database.read() as tx:
                page = index.digests_after(tx, after, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = str(page[-1])

    def stats(self) -> Stats:
        with self._ground.database.read() as tx:
            return Stats(**index.totals(tx))

    # In

    def part(self, name: str, *, expected_size: int | None = None) -> Part:
        """The unfinished file `name`, new or as far as it came, locked for this process.

        Raises vault-part-busy, vault-disk-full (also if `expected_size` bytes cannot fit beside the reserve), vault-io.
        """
        return Part(part_path(self._ground.spool, name), reserve_bytes=self.reserve_bytes, expected_size=expected_size)

    def publish(
        self,
        source: Part | Path,
        *,
        expected: Digest | None = None,
        move: bool = True,
        git: bool = False,
        listener: Listener = silent,
    ) -> Stored:
        """Take a finished part or a file into the vault: visible and durable when this returns. Idempotent.

        A part is consumed, and dropped if its hash is not `expected`. A file is consumed with `move`, copied without, and left
        alone on any failure. `git` adds git's blob id. Raises vault-hash-mismatch, vault-disk-full, vault-io, vault-changed.
        """
        if isinstance(source, Part):
            return publication.publish_part(self._ground, source, expected, git=git, listener=listener)
        return publication.publish_path(
            self._ground, source, expected, move=move, reserve=self.reserve_bytes, git=git, listener=listener
        )

    def put(self, data: bytes, *, expected: Digest | None = None, git: bool = False) -> Stored:
        """Take bytes in memory into the vault. Raises as `publish`."""
        return publication.publish_bytes(self._ground, data, expected, reserve=self.reserve_bytes, git=git)

    # Out

    def plan(self, sha256: Digest, offset: int = 0, length: int | None = None) -> list[Extent]:
        """Where the bytes of a range lie: FileExtent may be sent as it is; give DecodeExtent to `decode`.

        Raises vault-missing, vault-range-invalid, vault-corrupt-block (a file on disk has the wrong length).
        """
        size, runs = self._locate(sha256)
        stop = _stop(sha256, size, offset, length)
        extents: list[Extent] = []
        for run in runs:
            start, end = max(offset, run.start), min(stop, run.start + run.length)
            if start < end:
                extents.append(self._extent(run, run.offset + start - run.start, end - start))
        return extents

    def decode(self, extent: DecodeExtent) -> Iterator[bytes]:
        """The bytes of one extent that `plan` gave, each block authenticated."""
        with self._ground.database.read() as tx:
            run = index.locate_object(tx, extent.object_id)
        if run is None or extent.offset + extent.length > run.length:
            raise FreeholdError("vault-missing", f"{extent.object_id} is not in the vault", object=extent.object_id)
        file = VaultFile(self._ground, run.container.sha256, run.length, [run], lambda _: False)
        return _closing(file, extent.offset, extent.length)

    def read(self, sha256: Digest, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a range in pieces of at most 1 MiB; errors that concern the whole blob come before the first.

        Raises vault-missing, vault-range-invalid, vault-corrupt-block, vault-sidecar-invalid, vault-io.
        """
        file = self.open(sha256)
        try:
            stop = _stop(sha256, file.size, offset, length)
        except BaseException:
            file.close()
            raise
        return _closing(file, offset, stop - offset)

    def open(self, sha256: Digest) -> VaultFile:
        """The blob for positioned reads, under the read policy. Raises as `read`."""
        size, runs = self._locate(sha256)
        return VaultFile(self._ground, sha256, size, runs, self._trusts)

    def materialise(self, sha256: Digest) -> Path:
        """A real file with exactly these bytes, read-only, for engines. Verified whole first unless the policy trusts it.

        Raises vault-missing, vault-corrupt-block, vault-disk-full, vault-io.
        """
        size, runs = self._locate(sha256)
        container = runs[0].container
        path = self._ground.store.path(container.payload_key)
        if path is None or container.sha256 != sha256:
            return self._decoded_copy(sha256, size)
        if self._trusts(container):
            self._check_length(container)
            return path
        result = scrub.verify_container(self._ground, container)
        if isinstance(result, Damage):
            bad = result.blocks[0] if result.blocks else None
            code = "vault-missing" if result.reason == "missing" else "vault-corrupt-block"
            message = f"{sha256} is damaged ({result.reason}" + (f", first at byte {bad.offset})" if bad else ")")
            raise FreeholdError(code, message, sha256=sha256, index=bad and bad.index, offset=bad and bad.offset)
        return path

    # Keeping

    def verify(self, sha256: Digest | None = None, *, max_age_us: int | None = None, listener: Listener = silent) -> VerifyReport:
        """Hash everything again (or one blob, or what was not verified within `max_age_us`) and record what is good and bad.

        Nothing is deleted. Of all blobs, orphans of crashes are adopted first. Raises vault-missing for an unknown `sha256`.
        """
        if sha256 is None:
            self.sweep()
        return scrub.verify(self._ground, sha256, max_age_us, listener)

    def sweep(self, grace_us: int = GRACE_US) -> SweepReport:
        """Tidy what crashes left: finish removals, adopt whole orphans, delete leftovers older than the grace. For start-up."""
        return recovery.sweep(self._ground, grace_us)

    def rebuild(self, *, listener: Listener = silent) -> RebuildReport:
        """Fill the index from the sidecars alone, forgetting what it said. Everything counts as unverified afterwards."""
        return recovery.rebuild(self._ground, listener)

    def remove(self, sha256: Digest) -> bool:
        """Delete the blob; False if it is not held. Raises vault-leased if somebody needs it."""
        now = self._ground.clock()
        with disk_errors(f"removing {sha256}"), self._ground.lock(sha256), self._ground.database.write() as tx:
            container = index.find_container(tx, sha256)
            if container is None or container.state == index.TOMBSTONE:
                return False
            holders = index.lease_holders(tx, sha256, now)
            if holders:
                message = f"{sha256} is held by {', '.join(holders)}"
                raise FreeholdError("vault-leased", message, sha256=sha256, holders=", ".join(holders))
            index.bury(tx, container)
        recovery.unlink_buried(self._ground, sha256)
        with disk_errors(f"removing {sha256}"):
            self._decoded(sha256).unlink(missing_ok=True)
        return True

    def lease(self, holder: str, digests: Iterable[Digest], ttl_us: int) -> None:
        """Keep `digests` (held already or not yet) from removal for `ttl_us`; leasing again extends."""
        now = self._ground.clock()
        with disk_errors("leasing"), self._ground.database.write() as tx:
            index.drop_expired_leases(tx, now)
            index.lease(tx, holder, digests, now + ttl_us)

    def release(self, holder: str, digests: Iterable[Digest] | None = None) -> None:
        """End the holder's leases on `digests`, or all of them."""
        with disk_errors("releasing"), self._ground.database.write() as tx:
            index.release(tx, holder, None if digests is None else list(digests))

    # Inside

    def _locate(self, sha256: Digest) -> tuple[int, list[Placed]]:
        with self._ground.database.read() as tx:
            found = index.locate(tx, sha256)
        if found is None:
            raise _missing(sha256)
        return found

    def _trusts(self, container: Container) -> bool:
        """Whether bytes may leave this container unhashed."""
        if self.read_policy == "verify" or container.state != index.LIVE or container.verified_at is None:
            return False
        return self._ground.clock() - container.verified_at <= self.max_age_us

    def _extent(self, run: Placed, offset: int, length: int) -> Extent:
        path = self._ground.store.path(run.container.payload_key) if self._trusts(run.container) else None
        if path is None:
            return DecodeExtent(run.object_id, offset, length)
        self._check_length(run.container)
        return FileExtent(path, run.at + offset, length)

    def _check_length(self, container: Container) -> None:
        """A file that was cut short or is gone must not be promised to anyone."""
        try:
            size = self._ground.store.size(container.payload_key)
        except FileNotFoundError as error:
            raise FreeholdError(
                "vault-missing", f"the file that holds {container.sha256} is gone", sha256=container.sha256
            ) from error
        except OSError as error:
            raise as_vault_error(f"looking at {container.sha256}", error) from error
        if size != container.payload_length:
            message = f"{container.sha256}: {size} bytes on disk, {container.payload_length} were stored"
            raise FreeholdError(
                "vault-corrupt-block", message, sha256=container.sha256, offset=min(size, container.payload_length)
            )

    def _decoded(self, sha256: Digest) -> Path:
        return self._ground.spool / "decoded" / sha256.hex

    def _decoded_copy(self, sha256: Digest, size: int) -> Path:
        """For stores without files: a copy in the spool, verified while it is made; made once unless the policy is verify."""
        target = self._decoded(sha256)
        folder = target.parent
        with disk_errors(f"decoding {sha256}"):
            folder.mkdir(exist_ok=True)
            if self.read_policy != "verify" and target.is_file() and target.stat().st_size == size:
                return target
            require_room(folder, size, self.reserve_bytes, f"decoding {sha256}")
            with Part(folder / f"{sha256.hex}.part", reserve_bytes=self.reserve_bytes) as part, self.open(sha256) as file:
                part.truncate()
                for piece in file.chunks():
                    part.append(piece)
                part.sync()
                part.path.chmod(0o444)
                part.path.replace(target)
        return target


def _missing(sha256: Digest) -> FreeholdError:
    return FreeholdError("vault-missing", f"{sha256} is not in the vault", sha256=sha256)


def _stop(sha256: Digest, size: int, offset: int, length: int | None) -> int:
    """End of the range, cut at the size. Raises vault-range-invalid."""
    if offset < 0 or offset > size or (length is not None and length < 0):
        message = f"{sha256} has {size} bytes: no range from {offset} of length {length}"
        raise FreeholdError("vault-range-invalid", message, sha256=sha256, size=size, offset=offset)
    return size if length is None else min(size, offset + length)


def _closing(file: VaultFile, offset: int, length: int) -> Iterator[bytes]:
    with file:
        yield from file.chunks(offset, length)
