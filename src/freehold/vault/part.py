"""Part: an unfinished file in the spool that survives crashes and is continued, not begun again.

The file's own length is the only record of progress: what was appended before a crash is there or is not, and a wrong byte is
caught at publication by the hash. An advisory lock on the file keeps a second process from writing to it. A part that shares its
file with the vault (two links: a crash came between commit and clean-up) may be published or discarded, never written.
It does not hash and does not know where its bytes come from.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.vault.disk import disk_errors, require_room, sync_folder, write_all

SUFFIX = ".part"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def part_path(spool: Path, name: str) -> Path:
    """Where the part `name` lies. Names that are no plain file names (a URL) stand under their SHA-256."""
    plain = name if _PLAIN.fullmatch(name) else f"h-{hashlib.sha256(name.encode()).hexdigest()}"
    return spool / f"{plain}{SUFFIX}"


class Part:
    """Open and locked from construction to `close` (or the end of a `with` block); closing keeps the file.

    `expected_size` in bytes, if given, is checked against the free room at once: a download that cannot end does not begin.
    Raises vault-part-busy, vault-disk-full, vault-io.
    """

    def __init__(self, path: Path, *, reserve_bytes: int = 0, expected_size: int | None = None) -> None:
        self.path = path
        self._reserve = reserve_bytes
        self._fd = -1
        self._named = False  # whether the name of the file, and not its bytes alone, is known to be durable
        with disk_errors(f"opening the unfinished file {path.name}"):
            self._fd = _open_locked(path)
            self._size = os.fstat(self._fd).st_size
        if expected_size is not None and expected_size > self._size:
            try:
                require_room(path.parent, expected_size - self._size, reserve_bytes, f"fetching {path.name}")
            except BaseException:
                self.close()
                raise

    @property
    def size(self) -> int:
        """Bytes that are in the file: where to go on."""
        return self._size

    @property
    def complete(self) -> bool:
        """Whether the vault shares the file: it may be published or discarded, not written."""
        return os.fstat(self._fd).st_nlink > 1

    def append(self, chunk: bytes | memoryview) -> None:
        """Write `chunk` at the end.

        Raises vault-disk-full (what fitted stays, `size` says how much), vault-io, vault-part-complete.
        """
        if self.complete:
            raise FreeholdError("vault-part-complete", f"{self.path.name} is complete and shared with the vault", path=self.path)
        require_room(self.path.parent, len(chunk), self._reserve, f"writing {self.path.name}")
        with disk_errors(f"writing the unfinished file {self.path.name}"):
            try:
                write_all(self._fd, chunk)
                failpoint("vault.part-appended")
            finally:
                self._size = os.fstat(self._fd).st_size

    def truncate(self, size: int = 0) -> None:
        """Keep the first `size` bytes: the source changed, or its last bytes are in doubt."""
        if self.complete:
            raise FreeholdError("vault-part-complete", f"{self.path.name} is complete and shared with the vault", path=self.path)
        with disk_errors(f"truncating the unfinished file {self.path.name}"):
            os.ftruncate(self._fd, size)
            os.lseek(self._fd, 0, os.SEEK_END)
        self._size = size

    def pread(self, offset: int, length: int) -> bytes:
        """Bytes as they are in the spool, unverified: for studies before publication."""
        with disk_errors(f"reading the unfinished file {self.path.name}"):
            return os.pread(self._fd, length, offset)

    def sync(self) -> None:
        """Make what was appended outlive a power cut."""
        with disk_errors(f"writing the unfinished file {self.path.name}"):
            os.fsync(self._fd)
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True
            failpoint("vault.part-fsynced")

    def discard(self) -> None:
        """Remove the file and close."""
        with disk_errors(f"removing the unfinished file {self.path.name}"):
            self.path.unlink(missing_ok=True)
            failpoint("vault.part-removed")
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _open_locked(path: Path) -> int:
    """A locked descriptor at the end of the file that `path` names *now*: it may have been published while we waited to look."""
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, path):
                os.lseek(fd, 0, os.SEEK_END)
                return fd
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise FreeholdError("vault-part-busy", f"another process writes {path.name}", path=path) from error
            raise
        os.close(fd)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o600)
    except PermissionError:
        if path.stat().st_nlink > 1:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        path.chmod(0o600)
        return os.open(path, flags, 0o600)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
