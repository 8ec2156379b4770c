"""A store in a folder: a key is the path below its root, and its value a plain read-only file.

A put links a finished, fsynced file under its name, so that a crash leaves nothing or all of it, and the source survives until
its owner drops it. Plain files are what the kernel can send, an engine can map and a person can rescue with `cp`.
It does not hash and does not lock.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from freehold.failpoints import failpoint
from freehold.vault.disk import disk_errors, sync_folder, write_all
from freehold.vault.stores.store import StoredItem, check_key

_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}
_READ_ONLY = 0o444


class LocalStore:
    """Below `root`: the keys, and `tmp/` for unfinished puts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"
        with disk_errors(f"opening the vault in {root}"):
            self._tmp.mkdir(parents=True, exist_ok=True)

    def put_file(self, key: str, source: Path, *, replace: bool = False) -> bool:
        target = self._target(key)
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, _READ_ONLY)
            os.fsync(fd)
        finally:
            os.close(fd)
        failpoint("vault.file-fsynced")
        temporary = self._temporary()
        try:
            _link_or_copy(source, temporary)
            return self._enter(temporary, target, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        target = self._target(key)
        temporary = self._temporary()
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _READ_ONLY)
            try:
                write_all(fd, data)
                failpoint("vault.bytes-written")
                os.fsync(fd)
                failpoint("vault.bytes-fsynced")
            finally:
                os.close(fd)
            return self._enter(temporary, target, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, key: str) -> OpenFile:
        return OpenFile(self.root / check_key(key))

    def read(self, key: str) -> bytes:
        return (self.root / check_key(key)).read_bytes()

    def path(self, key: str) -> Path | None:
        return self.root / check_key(key)

    def size(self, key: str) -> int:
        return (self.root / check_key(key)).stat().st_size

    def exists(self, key: str) -> bool:
        return (self.root / check_key(key)).is_file()

    def list(self, prefix: str = "") -> Iterator[StoredItem]:
        for folder, folders, files in os.walk(self.root):
            at = Path(folder)
            below = "" if at == self.root else f"{at.relative_to(self.root).as_posix()}/"
            folders[:] = sorted(f for f in folders if (below or f != "tmp") and _overlap(f"{below}{f}/", prefix))
            for name in sorted(files):
                if f"{below}{name}".startswith(prefix):
                    try:
                        stat = (at / name).stat()
                    except FileNotFoundError:
                        continue
                    yield StoredItem(f"{below}{name}", stat.st_size, stat.st_ctime_ns // 1000)

    def delete(self, key: str) -> bool:
        target = self.root / check_key(key)
        try:
            target.unlink()
        except FileNotFoundError:
            return False
        failpoint("vault.unlinked")
        sync_folder(target.parent)
        return True

    def sweep(self, older_than: int) -> int:
        removed = 0
        for left in self._tmp.iterdir():
            try:
                if left.stat().st_ctime_ns // 1000 <= older_than:
                    left.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed

    def _target(self, key: str) -> Path:
        target = self.root / check_key(key)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            for folder in (target.parent, *target.parent.parents):
                if folder == self.root:
                    break
                sync_folder(folder.parent)
        return target

    def _temporary(self) -> Path:
        return self._tmp / uuid.uuid4().hex

    def _enter(self, temporary: Path, target: Path, *, replace: bool) -> bool:
        """Give the finished file its name. Renaming one link over another of the same file is a no-op, which is right."""
        if replace:
            temporary.replace(target)
        else:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if target.exists():
                    return False
                temporary.replace(target)
        failpoint("vault.renamed")
        sync_folder(target.parent)
        failpoint("vault.folder-fsynced")
        return True


class OpenFile:
    """A file open for positioned reads; it outlives its name."""

    _fd = -1

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size

    def pread(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length > 0 and (piece := os.pread(self._fd, length, offset)):
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _link_or_copy(source: Path, temporary: Path) -> None:
    """Share the blocks where the file system can; else copy, and compare what was written."""
    try:
        os.link(source, temporary, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, _READ_ONLY)
            os.fsync(fd)
        finally:
            os.close(fd)
        if not filecmp.cmp(source, temporary, shallow=False):
            raise OSError(errno.EIO, "the copy differs from its source", str(source)) from None
    failpoint("vault.linked")


def _overlap(folder: str, prefix: str) -> bool:
    return folder.startswith(prefix) or prefix.startswith(folder)
