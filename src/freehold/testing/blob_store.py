"""What every BlobStore must do, as checks that any implementation runs.

Each check is a function whose first line is the sentence that it protects; it takes an empty store and an empty folder for source
files, and raises AssertionError. A suite runs all of `CHECKS`, each with a new store. It does not test speed or durability
against power cuts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from freehold.vault.stores import BlobStore

Check = Callable[[BlobStore, Path], None]
_KEY = "loose/ab/abcdef"
_OTHER = "loose/cd/cdef01.table"


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _source(folder: Path, data: bytes, name: str = "source") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _absent(act: Callable[[], object], what: str) -> None:
    try:
        act()
    except FileNotFoundError:
        return
    raise AssertionError(f"{what} of an absent key does not raise FileNotFoundError")


def what_is_put_is_read_back(store: BlobStore, folder: Path) -> None:
    """Bytes put from a file and from memory come back the same, empty ones too."""
    for number, data in enumerate((b"", b"x", bytes(range(256)) * 4099)):
        by_file, by_bytes = f"loose/f{number}", f"loose/b{number}.table"
        _require(store.put_file(by_file, _source(folder, data, f"s{number}")), "a first put says True")
        _require(store.put_bytes(by_bytes, data), "a first put says True")
        for key in (by_file, by_bytes):
            _require(store.read(key) == data, f"{key} reads back")
            _require(store.size(key) == len(data), f"{key} has its size")
            _require(store.exists(key), f"{key} exists")


def a_put_never_changes_what_is_there(store: BlobStore, folder: Path) -> None:
    """A put to a taken key says False and changes nothing, unless it replaces."""
    store.put_bytes(_KEY, b"first")
    _require(not store.put_bytes(_KEY, b"second"), "a second put says False")
    _require(not store.put_file(_KEY, _source(folder, b"third")), "a second put from a file says False")
    _require(store.read(_KEY) == b"first", "the first value stays")
    _require(store.put_bytes(_KEY, b"longer than the first", replace=True), "a replacing put says True")
    _require(store.read(_KEY) == b"longer than the first", "the new value is there")
    _require(store.put_file(_KEY, _source(folder, b"4", "other"), replace=True), "a replacing put from a file says True")
    _require(store.read(_KEY) == b"4", "the new value is there")


def the_source_of_a_put_stays_and_may_go(store: BlobStore, folder: Path) -> None:
    """put_file leaves its source; unlinking the source afterwards does not touch the value; the same source may be put again."""
    source = _source(folder, b"bytes")
    store.put_file(_KEY, source)
    _require(source.read_bytes() == b"bytes", "the source stays")
    _require(store.put_file(_KEY, source, replace=True), "the same source replaces itself")
    _require(store.read(_KEY) == b"bytes", "and the value is whole")
    source.unlink()
    _require(store.read(_KEY) == b"bytes", "the value outlives its source")


def ranges_are_exact(store: BlobStore, folder: Path) -> None:  # noqa: ARG001
    """pread gives exactly the range, and less only at the end."""
    data = bytes(range(251)) * 5000
    store.put_bytes(_KEY, data)
    with store.open(_KEY) as reading:
        _require(reading.size == len(data), "the size of an open value")
        for offset, length in ((0, 1), (7, 100_000), (len(data) - 3, 100), (len(data), 5), (len(data) + 9, 5), (0, 0)):
            _require(reading.pread(offset, length) == data[offset : offset + length], f"range {offset}+{length}")


def an_open_value_outlives_its_key(store: BlobStore, folder: Path) -> None:  # noqa: ARG001
    """What is open stays readable while its key is replaced or deleted."""
    store.put_bytes(_KEY, b"old value")
    with store.open(_KEY) as reading:
        store.put_bytes(_KEY, b"new", replace=True)
        _require(reading.pread(0, 9) == b"old value", "after a replacement")
        store.delete(_KEY)
        _require(reading.pread(4, 5) == b"value", "after a deletion")


def absent_keys_are_absent(store: BlobStore, folder: Path) -> None:  # noqa: ARG001
    """An absent key raises FileNotFoundError, does not exist, and is deleted only once."""
    _absent(lambda: store.open(_KEY), "open")
    _absent(lambda: store.read(_KEY), "read")
    _absent(lambda: store.size(_KEY), "size")
    _require(not store.exists(_KEY), "an absent key does not exist")
    _require(not store.delete(_KEY), "deleting an absent key says False")
    store.put_bytes(_KEY, b"x")
    _require(store.delete(_KEY), "deleting says True")
    _require(not store.delete(_KEY), "deleting again says False")
    _absent(lambda: store.read(_KEY), "read after deletion")
    _require(store.put_bytes(_KEY, b"y"), "a deleted key can be put again")


def a_listing_holds_every_key_once(store: BlobStore, folder: Path) -> None:
    """list gives every key under a prefix with its size, and nothing unfinished or deleted."""
    _require(list(store.list()) == [], "an empty store lists nothing")
    store.put_bytes(_KEY, b"123")
    store.put_file(_OTHER, _source(folder, b"12345"))
    store.put_bytes("packs/ef", b"1")
    store.put_bytes("packs/gone", b"1")
    store.delete("packs/gone")
    sizes = {item.key: item.size for item in store.list()}
    _require(sizes == {_KEY: 3, _OTHER: 5, "packs/ef": 1}, f"the whole listing: {sizes}")
    for prefix, expected in (("loose/", {_KEY, _OTHER}), ("loose/ab/", {_KEY}), ("loose/a", {_KEY}), ("none", set())):
        _require({item.key for item in store.list(prefix)} == expected, f"the listing of {prefix!r}")
    _require(all(item.since > 0 for item in store.list()), "every item says since when")


def a_path_holds_the_value(store: BlobStore, folder: Path) -> None:
    """Where a store has paths, the file there is the value, and is read-only."""
    store.put_bytes(_KEY, b"by bytes")
    store.put_file(_OTHER, _source(folder, b"by file"))
    for key, data in ((_KEY, b"by bytes"), (_OTHER, b"by file")):
        path = store.path(key)
        if path is not None:
            _require(path.read_bytes() == data, "the file is the value")
            _require(path.stat().st_mode & 0o222 == 0, "nobody may write to it")


def one_of_many_puts_wins(store: BlobStore, folder: Path) -> None:  # noqa: ARG001
    """Of simultaneous puts to one key exactly one succeeds, and its value is there whole."""
    gate = threading.Barrier(8)
    won: list[int] = []

    def put(number: int) -> None:
        gate.wait()
        if store.put_bytes(_KEY, bytes([number]) * 100_000):
            won.append(number)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(len(won) == 1, f"{len(won)} puts believe to have won")
    _require(store.read(_KEY) == bytes(won) * 100_000, "the winner's value is there")


def a_failed_put_leaves_nothing(store: BlobStore, folder: Path) -> None:
    """A put whose source cannot be read raises OSError and leaves no key behind."""
    try:
        store.put_file(_KEY, folder / "absent")
    except OSError:
        pass
    else:
        raise AssertionError("a put without source succeeds")
    _require(not store.exists(_KEY), "the key is not there")
    _require(list(store.list()) == [], "nothing is listed")


def sweeping_touches_no_value(store: BlobStore, folder: Path) -> None:
    """sweep removes leftovers alone."""
    store.put_bytes(_KEY, b"x")
    store.put_file(_OTHER, _source(folder, b"y"))
    store.sweep(older_than=1 << 62)
    _require(store.read(_KEY) + store.read(_OTHER) == b"xy", "all values stay")


def bad_keys_are_refused(store: BlobStore, folder: Path) -> None:  # noqa: ARG001
    """A key that could leave the store is refused as a bug."""
    for key in ("", "/etc", "../x", "a//b", "a/../b", "A", "a b", "a/", "a\0"):
        try:
            store.put_bytes(key, b"")
        except ValueError:
            continue
        raise AssertionError(f"the key {key!r} is accepted")


CHECKS: tuple[Check, ...] = (
    what_is_put_is_read_back,
    a_put_never_changes_what_is_there,
    the_source_of_a_put_stays_and_may_go,
    ranges_are_exact,
    an_open_value_outlives_its_key,
    absent_keys_are_absent,
    a_listing_holds_every_key_once,
    a_path_holds_the_value,
    one_of_many_puts_wins,
    a_failed_put_leaves_nothing,
    sweeping_touches_no_value,
    bad_keys_are_refused,
)
