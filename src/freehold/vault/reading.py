"""VaultFile: positioned reads of one blob, each block checked before a byte of it is given out.

Only where the policy says so (`trusted`, decided by the vault for each container) bytes go out as they lie; even then the
payload's length is checked. A block that was just checked is remembered, so that parsing a header in small reads costs one hash.
It does not mark damage: reading writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.vault.disk import as_vault_error
from freehold.vault.ground import Ground
from freehold.vault.hashing import BLOCK_SIZE, block_hash
from freehold.vault.index import Container, Placed
from freehold.vault.sidecar import ObjectEntry, Segment
from freehold.vault.stores.store import Reading

_PIECE = 4 * BLOCK_SIZE


class VaultFile:
    """One open blob of `size` bytes. Reads are safe from several threads; it stays readable while the blob is removed."""

    def __init__(
        self, ground: Ground, sha256: Digest, size: int, runs: list[Placed], trusts: Callable[[Container], bool]
    ) -> None:
        self.sha256 = sha256
        self.size = size
        self._runs: list[tuple[Placed, _Payload]] = []
        opened: dict[int, _Payload] = {}
        try:
            for run in runs:
                if run.container.id not in opened:
                    opened[run.container.id] = _Payload(ground, run.container, trusted=trusts(run.container))
                self._runs.append((run, opened[run.container.id]))
            _check_manifest(sha256, runs, opened.values())
        except BaseException:
            self.close()
            for payload in opened.values():
                payload.close()
            raise

    def pread(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end.

        Raises vault-corrupt-block, vault-io.
        """
        stop = min(offset + length, self.size)
        pieces: list[bytes] = []
        for run, payload in self._runs:
            start, end = max(offset, run.start), min(stop, run.start + run.length)
            if start < end:
                pieces += payload.pieces(run, run.offset + start - run.start, end - start)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The range in pieces of at most 1 MiB that end on block borders."""
        stop = self.size if length is None else min(self.size, offset + length)
        while offset < stop:
            end = min(stop, (offset // _PIECE + 1) * _PIECE)
            yield self.pread(offset, end - offset)
            offset = end

    def close(self) -> None:
        for _, payload in self._runs:
            payload.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Payload:
    """An open payload with the block hashes of its objects, unless it is trusted."""

    def __init__(self, ground: Ground, container: Container, *, trusted: bool) -> None:
        self._container = container
        self.table = None if trusted else ground.table_of(container.sha256)
        self._entries = None if self.table is None else {entry.id: entry for entry in self.table.objects}
        self._reading: Reading = _open(ground, container)
        self._recent: tuple[Digest, int, bytes] | None = None
        if trusted and self._reading.size != container.payload_length:
            size = self._reading.size
            self.close()
            message = f"{container.sha256}: {size} bytes on disk, {container.payload_length} were stored"
            raise FreeholdError("vault-corrupt-block", message, sha256=container.sha256, index=size // BLOCK_SIZE, offset=size)

    def pieces(self, run: Placed, offset: int, length: int) -> list[bytes]:
        """`length` plain bytes of the run's object from `offset`, in order."""
        if self._entries is None:
            data = self._pread(run.at + offset, length)
            if len(data) != length:
                raise self._corrupt(offset // BLOCK_SIZE, offset + len(data))
            return [data]
        entry = self._entries.get(run.object_id)
        if entry is None:
            message = f"the table of {self._container.sha256} does not hold {run.object_id}, as the index says"
            raise FreeholdError("vault-index-invalid", message, sha256=self._container.sha256)
        pieces = []
        stop = offset + length
        for index in range(offset // BLOCK_SIZE, -(-stop // BLOCK_SIZE)):
            block = self._checked(entry, index)
            base = index * BLOCK_SIZE
            whole = offset <= base and stop >= base + len(block)
            pieces.append(block if whole else block[max(offset - base, 0) : stop - base])
        return pieces

    def _checked(self, entry: ObjectEntry, index: int) -> bytes:
        recent = self._recent
        if recent is not None and recent[:2] == (entry.id, index):
            return recent[2]
        start = index * BLOCK_SIZE
        block = self._pread(entry.offset + start, min(BLOCK_SIZE, entry.plain_length - start))
        if block_hash(block) != entry.block(index):
            raise self._corrupt(index, start)
        self._recent = (entry.id, index, block)
        return block

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            return self._reading.pread(offset, length)
        except OSError as error:
            raise as_vault_error(f"reading {self._container.sha256} at {offset}", error) from error

    def _corrupt(self, index: int, offset: int) -> FreeholdError:
        sha256 = self._container.sha256
        message = f"block {index} of {sha256} (at byte {offset}) does not match its hash"
        return FreeholdError("vault-corrupt-block", message, sha256=sha256, index=index, offset=offset)

    def close(self) -> None:
        self._reading.close()


def _check_manifest(sha256: Digest, runs: list[Placed], payloads: Iterable[_Payload]) -> None:
    """Where tables were read, their manifest of this blob must say what the index says. Raises vault-index-invalid."""
    tables = [payload.table for payload in payloads if payload.table is not None]
    segments = tuple(Segment(run.object_id, run.offset, run.length) for run in runs)
    if tables and not any(file.sha256 == sha256 and file.segments == segments for table in tables for file in table.files):
        raise FreeholdError("vault-index-invalid", f"the index and the table of {sha256} disagree", sha256=sha256)


def _open(ground: Ground, container: Container) -> Reading:
    try:
        return ground.store.open(container.payload_key)
    except FileNotFoundError as error:
        message = f"the file that holds {container.sha256} is gone"
        raise FreeholdError("vault-missing", message, sha256=container.sha256, path=error.filename) from error
    except OSError as error:
        raise as_vault_error(f"opening {container.sha256}", error) from error
