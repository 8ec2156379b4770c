"""A store in memory: for tests and for vaults that shall leave no trace. Nothing in it outlives the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from freehold.vault.stores.store import StoredItem, check_key


class MemoryStore:
    def __init__(self) -> None:
        self._values: dict[str, tuple[bytes, int]] = {}
        self._lock = threading.Lock()

    def put_file(self, key: str, source: Path, *, replace: bool = False) -> bool:
        return self.put_bytes(key, source.read_bytes(), replace=replace)

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        with self._lock:
            if check_key(key) in self._values and not replace:
                return False
            self._values[key] = (bytes(data), time.time_ns() // 1000)
            return True

    def open(self, key: str) -> OpenBytes:
        return OpenBytes(self.read(key))

    def read(self, key: str) -> bytes:
        try:
            return self._values[check_key(key)][0]
        except KeyError:
            raise FileNotFoundError(2, "no such key", key) from None

    def path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def size(self, key: str) -> int:
        return len(self.read(key))

    def exists(self, key: str) -> bool:
        return check_key(key) in self._values

    def list(self, prefix: str = "") -> Iterator[StoredItem]:
        with self._lock:
            found = [StoredItem(k, len(v), since) for k, (v, since) in sorted(self._values.items()) if k.startswith(prefix)]
        yield from found

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._values.pop(check_key(key), None) is not None

    def sweep(self, older_than: int) -> int:  # noqa: ARG002 - puts here cannot be interrupted half-way
        return 0


class OpenBytes:
    """Bytes that stay readable whatever becomes of their key."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + max(length, 0)]

    def close(self) -> None:
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
