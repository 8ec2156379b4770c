"""What the operating system says of a disk, as errors a user can act on; and the few durable steps of POSIX.

One place maps errno to codes, so that no OSError leaves the vault: no room, gone, or broken. It decides nothing about retrying.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from freehold.errors import FreeholdError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_GONE = {errno.ENOENT, errno.ENOTDIR}


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """OSError inside becomes vault-disk-full, vault-missing or vault-io; `what` names the thing and the act."""
    try:
        yield
    except OSError as error:
        raise as_vault_error(what, error) from error
    except FreeholdError as error:
        if error.code == "db-disk-full":
            raise FreeholdError("vault-disk-full", f"{what}: {error.message}", **error.context) from error
        raise


def as_vault_error(what: str, error: OSError) -> FreeholdError:
    """The FreeholdError for `error` while doing `what`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return FreeholdError("vault-disk-full", f"{what}: {reason}", path=error.filename)
    if error.errno in _GONE:
        return FreeholdError("vault-missing", f"{what}: {reason}", path=error.filename)
    return FreeholdError("vault-io", f"{what}: {reason}", path=error.filename, errno=error.errno)


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the file system of `folder`."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def require_room(folder: Path, length: int, reserve: int, what: str) -> None:
    """Raises vault-disk-full if `length` more bytes would leave less than `reserve` free."""
    free = free_bytes(folder)
    if free - length < reserve:
        raise FreeholdError(
            "vault-disk-full",
            f"{what}: {length:,} bytes are needed, {free:,} are free, and {reserve:,} of these stay reserved",
            needed=length,
            free=free,
            reserve=reserve,
        )


def write_all(fd: int, data: bytes | memoryview) -> int:
    """Write all of `data` at the descriptor's position."""
    view = memoryview(data)
    written = 0
    while written < len(view):
        written += os.write(fd, view[written:])
    return written


def sync_file(path: Path) -> None:
    """fsync the file at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that names in it outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the advisory lock on `path`; waits for other processes and threads. The lock falls with the process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
