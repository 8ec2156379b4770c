"""Signs of life: which process owns an open reservation, and whether it still lives.

A process holds a lock on a file of its own; the kernel lets go of it however the process dies, so that nothing has to
be renewed and a process id that was given out again deceives nobody. Works across containers that share the home.
It does not outlive a fork: a forked child that keeps the file open counts as its parent.
"""

from __future__ import annotations

import fcntl
import os
import uuid
import weakref
from pathlib import Path

from freehold.errors import FreeholdError

_SUFFIX = ".alive"


class Presence:
    """This process in one home: `id` names it as long as it lives."""

    def __init__(self, folder: Path) -> None:
        self.id = uuid.uuid4().hex
        path = _path(folder, self.id)
        try:
            self._file = _locked(path)
        except OSError as error:
            raise FreeholdError("home-unwritable", f"cannot note this process in {folder}: {error}", path=folder) from error
        self._leave = weakref.finalize(self, _remove, path, self._file, os.getpid())

    def close(self) -> None:
        """Leave; open reservations of this process count as a dead one's from now on."""
        self._leave()


def is_alive(folder: Path, owner: str) -> bool:
    """Whether the process that called itself `owner` still lives; the file of a dead one is cleared away."""
    path = _path(folder, owner)
    try:
        number = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def sweep(folder: Path) -> None:
    """Clear away the files of dead processes."""
    for path in folder.glob(f"ledger-*{_SUFFIX}"):
        is_alive(folder, path.name.removeprefix("ledger-").removesuffix(_SUFFIX))


def _path(folder: Path, owner: str) -> Path:
    return folder / f"ledger-{owner}{_SUFFIX}"


def _locked(path: Path) -> int:
    """The file, made and locked; made again if a sweep took it away in between."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(number, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == os.fstat(number).st_ino:
            return number
        os.close(number)


def _remove(path: Path, number: int, pid: int) -> None:
    if os.getpid() == pid:
        path.unlink(missing_ok=True)
        os.close(number)
