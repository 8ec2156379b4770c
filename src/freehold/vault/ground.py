"""What the verbs of the vault work on: a store, an index, a spool and a clock, and the two acts that all of them share.

It decides nothing; it is the argument list that publication, reading, verification and recovery would otherwise repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from freehold.db import Database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.moment import Clock
from freehold.vault.disk import disk_errors, file_lock
from freehold.vault.index import table_key
from freehold.vault.sidecar import Table, decode_table
from freehold.vault.stores.store import BlobStore


@dataclass(frozen=True)
class Ground:
    """`spool` holds parts and locks and lies on the store's file system where there is one."""

    store: BlobStore
    database: Database
    spool: Path
    clock: Clock

    @contextmanager
    def lock(self, sha256: Digest) -> Iterator[None]:
        """Between processes: one at a time publishes or removes this blob (or one of its 255 neighbours)."""
        folder = self.spool / "locks"
        with disk_errors(f"locking {sha256}"):
            folder.mkdir(exist_ok=True)
            with file_lock(folder / f"{sha256.hex[:2]}.lock"):
                yield

    def table_of(self, sha256: Digest) -> Table:
        """The checked sidecar of a loose file. Raises vault-sidecar-invalid (or gone), vault-format-newer, vault-io."""
        try:
            data = self.store.read(table_key(sha256))
        except FileNotFoundError as error:
            raise FreeholdError("vault-sidecar-invalid", f"the table of {sha256} is gone", sha256=sha256) from error
        except OSError as error:
            raise FreeholdError("vault-io", f"reading the table of {sha256}: {error.strerror}", sha256=sha256) from error
        try:
            table = decode_table(data)
        except FreeholdError as error:
            raise FreeholdError(error.code, f"{sha256}: {error.message}", sha256=sha256, **error.context) from error
        if table.payload_sha256 != sha256:
            raise FreeholdError("vault-sidecar-invalid", f"the table of {sha256} describes {table.payload_sha256}", sha256=sha256)
        return table
