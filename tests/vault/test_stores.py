"""Both stores pass the one conformance suite, and the local one also where the file system has no hard links."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.testing.blob_store import CHECKS, Check
from freehold.vault import BlobStore, LocalStore, MemoryStore

STORES: dict[str, Callable[[Path], BlobStore]] = {"local": LocalStore, "memory": lambda _: MemoryStore()}


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_store_keeps_the_contract(kind: str, check: Check, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    check(STORES[kind](tmp_path / "store"), sources)


@pytest.mark.parametrize("check", [c for c in CHECKS if c.__name__ != "one_of_many_puts_wins"], ids=lambda c: c.__name__)
def test_the_local_store_keeps_it_without_hard_links(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    sources = tmp_path / "sources"
    sources.mkdir()
    check(LocalStore(tmp_path / "store"), sources)


class _BrokenStore(MemoryStore):
    """Forgets the last byte of each put."""

    def put_bytes(self, key: str, data: bytes, *, replace: bool = False) -> bool:
        return super().put_bytes(key, data[:-1], replace=replace)


def test_the_suite_finds_a_broken_store(tmp_path: Path) -> None:
    failed = 0
    for check in CHECKS:
        try:
            check(_BrokenStore(), tmp_path)
        except AssertionError:
            failed += 1
    assert failed >= 5


def test_an_interrupted_put_leaves_a_temporary_file_that_sweep_removes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "tmp" / "left-over").write_bytes(b"half")
    assert list(store.list()) == []
    assert store.sweep(older_than=0) == 0
    assert store.sweep(older_than=1 << 62) == 1
    assert not list((tmp_path / "tmp").iterdir())
