"""Byte sources: each keeps the protocol, and a file that cannot be read is an error with a code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.errors import FreeholdError
from freehold.formats.source import ByteSource, BytesSource, FileSource, read_all
from freehold.testing.byte_source import check_byte_source


@contextlib.contextmanager
def in_memory(data: bytes) -> Iterator[ByteSource]:
    yield BytesSource(data)


def test_bytes_in_memory_keep_the_protocol() -> None:
    check_byte_source(in_memory)


def test_an_open_file_keeps_the_protocol(tmp_path: Path) -> None:
    @contextlib.contextmanager
    def in_file(data: bytes) -> Iterator[ByteSource]:
        (tmp_path / "file").write_bytes(data)
        with (tmp_path / "file").open("rb") as file:
            yield FileSource(file)

    check_byte_source(in_file)


def test_the_suite_catches_a_source_that_shifts_its_ranges() -> None:
    class Shifted(BytesSource):
        def pread(self, offset: int, length: int, /) -> bytes:
            return super().pread(offset + 1, length)

    with pytest.raises(AssertionError, match="exactly"):
        check_byte_source(lambda data: contextlib.nullcontext(Shifted(data)))


def test_a_file_shortened_while_open_ends_early_and_a_folder_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    with path.open("r+b") as file:
        source = FileSource(file)
        file.truncate(10)
        assert source.size == 100
        assert len(source.pread(0, 100)) == 10
    with path.open("wb") as write_only, pytest.raises(FreeholdError) as caught:
        write_only.write(b"x")
        write_only.flush()
        FileSource(write_only).pread(0, 1)
    assert caught.value.row.code == "formats-source-unreadable"


def test_what_is_read_whole_has_a_limit() -> None:
    assert read_all(BytesSource(b"abc"), 3, "card") == b"abc"
    with pytest.raises(FreeholdError, match="card has 4 bytes") as caught:
        read_all(BytesSource(b"abcd"), 3, "card")
    assert caught.value.row.code == "formats-too-large"
