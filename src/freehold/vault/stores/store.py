"""BlobStore: immutable bytes under keys, put once and whole.

Narrow on purpose: an object storage service offers no more than this (put if absent, ranged get, list, delete), and what needs
more, such as mapping a file, asks for `path` and lives with None. Stores raise OSError as the system gives it, FileNotFoundError
for an absent key; the vault translates. A store does not know digests, hashes or formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

_KEY = re.compile(r"[a-z0-9]+(?:/[a-z0-9]+)*(?:\.[a-z0-9]+)?")


def check_key(key: str) -> str:
    """`key` if it is lower-case words joined by `/`, with at most one suffix; ValueError otherwise (a bug, not an input)."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One key with its size in bytes and the moment (UTC microseconds) since which it has been there."""

    key: str
    size: int
    since: int


class Reading(Protocol):
    """Open bytes: they stay readable until closed, even if the key is deleted or replaced meanwhile."""

    size: int

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end. Safe for several threads at once."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class BlobStore(Protocol):
    """All puts are atomic (nothing or the whole value under the key) and durable when they return."""

    def put_file(self, key: str, source: Path, *, replace: bool = False) -> bool:
        """Store the bytes of `source`; False (and no change) if `key` is there and `replace` is not set.

        The store may share the file's blocks with `source` (a hard link) and makes it read-only: the caller must not
        write to it afterwards, and unlinks it when it likes.
        """

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        """Store `data`; False (and no change) if `key` is there and `replace` is not set."""

    def open(self, key: str) -> Reading:
        """Raises FileNotFoundError."""

    def read(self, key: str) -> bytes:
        """All bytes under `key`; for small things. Raises FileNotFoundError."""

    def path(self, key: str) -> Path | None:
        """The file that holds exactly these bytes, or None if this store keeps no files. Does not check that it exists."""

    def size(self, key: str) -> int:
        """Bytes under `key`. Raises FileNotFoundError."""

    def exists(self, key: str) -> bool: ...

    def list(self, prefix: str = "") -> Iterator[StoredItem]:
        """All keys that begin with `prefix`, in any order; unfinished puts are never among them."""

    def delete(self, key: str) -> bool:
        """Durably; False if it was not there."""

    def sweep(self, older_than: int) -> int:
        """Remove what interrupted puts left behind before the moment `older_than`; how many."""
