"""The vault gives back exactly the bytes that went in, by digest and by range, and refuses the rest in clear codes."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.db import open_database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import DecodeExtent, FileExtent
from freehold.vault import LocalStore, MemoryStore, Vault

BLOCK = 262_144
#: Sizes around every border: empty, one block, one chunk of hashing.
SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 4 * BLOCK + 1, 9 * BLOCK + 77]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["local", "memory"])
def vault(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Vault]:
    database = open_database(tmp_path / "vault.db", "vault", clock)
    store = LocalStore(tmp_path / "vault") if request.param == "local" else MemoryStore()
    yield Vault(store, database, tmp_path / "spool", clock)
    database.close()


@pytest.fixture
def local(tmp_path: Path, clock: Clock) -> Iterator[Vault]:
    database = open_database(tmp_path / "local.db", "vault", clock)
    yield Vault(LocalStore(tmp_path / "store"), database, tmp_path / "parts", clock)
    database.close()


def sha256(data: bytes) -> Digest:
    return Digest.sha256(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
def test_what_is_published_comes_back_byte_for_byte_whole_and_by_range(vault: Vault, size: int) -> None:
    data = os.urandom(size)
    with vault.part("download") as part:
        part.append(data[: size // 2])
        part.append(data[size // 2 :])
        stored = vault.publish(part, expected=sha256(data), git=True)
    assert stored.sha256 == sha256(data)
    assert stored.size == vault.size(stored.sha256) == size
    assert stored.git_sha1 == Digest("gitsha1", hashlib.sha1(b"blob %d\0" % size + data, usedforsecurity=False).hexdigest())
    assert vault.has(stored.sha256)
    assert b"".join(vault.read(stored.sha256)) == data
    for offset, length in [(0, 1), (size // 3, BLOCK), (max(size - 5, 0), 100), (size, 10), (BLOCK - 1, 2)]:
        if offset <= size:
            assert b"".join(vault.read(stored.sha256, offset, length)) == data[offset : offset + length]
    with vault.open(stored.sha256) as file:
        assert file.pread(size // 2, 1000) == data[size // 2 : size // 2 + 1000]
        assert file.pread(size + 5, 10) == b""
    assert vault.materialise(stored.sha256).read_bytes() == data
    assert list(vault.digests()) == [stored.sha256]
    assert vault.stats().plain_bytes == size


@pytest.mark.parametrize("size", SIZES)
def test_a_plan_covers_the_range_exactly(vault: Vault, size: int) -> None:
    data = os.urandom(size)
    digest = vault.put(data).sha256
    for offset, length in [(0, None), (size // 3, size // 2), (size, None)]:
        got = b""
        for extent in vault.plan(digest, offset, length):
            if isinstance(extent, FileExtent):
                got += extent.path.read_bytes()[extent.offset : extent.offset + extent.length]
            else:
                got += b"".join(vault.decode(extent))
        assert got == data[offset : size if length is None else offset + length]


def test_raw_extents_leave_only_while_the_policy_trusts_the_container(tmp_path: Path, clock: Clock, local: Vault) -> None:
    digest = local.put(b"x" * 100).sha256
    assert isinstance(local.plan(digest)[0], FileExtent)
    clock.now += local.max_age_us + 1
    assert isinstance(local.plan(digest)[0], DecodeExtent)
    assert local.verify(digest).ok
    assert isinstance(local.plan(digest)[0], FileExtent)
    local.read_policy = "verify"
    assert isinstance(local.plan(digest)[0], DecodeExtent)


def test_a_part_goes_on_where_it_stopped(vault: Vault) -> None:
    with vault.part("https://hub.example/file?x=1") as part:
        part.append(b"first ")
        part.sync()
    with vault.part("https://hub.example/file?x=1") as part:
        assert part.size == 6
        assert part.pread(0, 5) == b"first"
        part.append(b"second")
        stored = vault.publish(part)
    assert b"".join(vault.read(stored.sha256)) == b"first second"
    with vault.part("https://hub.example/file?x=1") as part:
        assert part.size == 0


def test_two_holders_of_one_part_are_kept_apart(vault: Vault) -> None:
    with vault.part("same") as part:
        with pytest.raises(FreeholdError) as caught:
            vault.part("same")
        assert caught.value.code == "vault-part-busy"
        part.append(b"kept")
    with vault.part("same") as part:
        assert part.size == 4


def test_a_wrong_hash_stores_nothing_drops_the_part_and_leaves_a_callers_file_alone(vault: Vault, tmp_path: Path) -> None:
    wrong = sha256(b"announced")
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"delivered")
    with vault.part("p") as part, pytest.raises(FreeholdError) as caught:
        part.append(b"delivered")
        vault.publish(part, expected=wrong)
    assert caught.value.code == "vault-hash-mismatch"
    for move in (True, False):
        with pytest.raises(FreeholdError, match="expected") as caught:
            vault.publish(mine, expected=wrong, move=move)
        assert caught.value.code == "vault-hash-mismatch"
    with pytest.raises(FreeholdError):
        vault.put(b"delivered", expected=wrong)
    assert mine.read_bytes() == b"delivered"
    assert vault.part("p").size == 0
    assert not vault.has(wrong)
    assert vault.stats().files == 0
    assert not list((tmp_path / "spool").glob("copy-*"))


def test_publishing_the_same_bytes_again_stores_them_once(vault: Vault, tmp_path: Path) -> None:
    mine = tmp_path / "mine.bin"
    mine.write_bytes(b"same bytes")
    first = vault.publish(mine, move=False)
    assert mine.exists()
    again = vault.publish(mine, move=True)
    assert not mine.exists()
    assert (first.fresh, again.fresh) == (True, False)
    assert vault.put(b"same bytes").sha256 == first.sha256
    assert vault.stats().files == vault.stats().containers == 1


def test_a_file_that_others_may_write_is_copied_not_shared(local: Vault, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.bin", tmp_path / "other.bin"
    mine.write_bytes(b"original")
    other.hardlink_to(mine)
    digest = local.publish(mine, move=True).sha256
    other.write_bytes(b"tampered")
    assert b"".join(local.read(digest)) == b"original"
    link = tmp_path / "link"
    link.symlink_to(other)
    stored = local.publish(link, move=True)
    assert not link.is_symlink()
    assert other.read_bytes() == b"tampered"
    assert b"".join(local.read(stored.sha256)) == b"tampered"


def test_a_materialised_file_is_read_only_and_is_the_stored_file_itself(local: Vault) -> None:
    digest = local.put(b"weights").sha256
    path = local.materialise(digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.name == digest.hex


def test_unknown_digests_and_impossible_ranges_are_named(vault: Vault) -> None:
    unknown = sha256(b"never seen")
    for ask in (vault.size, vault.read, vault.open, vault.plan, vault.materialise, vault.verify):
        with pytest.raises(FreeholdError) as caught:
            ask(unknown)
        assert caught.value.code == "vault-missing"
    assert not vault.has(unknown)
    assert not vault.remove(unknown)
    digest = vault.put(b"12345").sha256
    for offset, length in [(-1, 2), (6, 1), (0, -1)]:
        for ask in (vault.read, vault.plan):
            with pytest.raises(FreeholdError) as caught:
                ask(digest, offset, length)
            assert caught.value.code == "vault-range-invalid"


def test_a_leased_blob_stays_until_the_lease_ends(vault: Vault, clock: Clock) -> None:
    one, two = vault.put(b"one").sha256, vault.put(b"two").sha256
    vault.lease("engine:1", [one, two], ttl_us=1000)
    with pytest.raises(FreeholdError, match="engine:1") as caught:
        vault.remove(one)
    assert caught.value.code == "vault-leased"
    vault.release("engine:1", [one])
    assert vault.remove(one)
    with pytest.raises(FreeholdError):
        vault.remove(two)
    clock.now += 1001
    assert vault.remove(two)
    assert vault.stats().files == vault.stats().objects == vault.stats().stored_bytes == 0


def test_a_reader_keeps_its_bytes_while_the_blob_is_removed_and_it_can_come_back(vault: Vault) -> None:
    digest = vault.put(b"r" * 3_000_000).sha256
    pieces = vault.read(digest)
    assert len(next(pieces)) > 0
    assert vault.remove(digest)
    assert not vault.has(digest)
    assert sum(len(p) for p in pieces) > 0
    assert vault.put(b"r" * 3_000_000).fresh
    assert vault.has(digest)


WRITER = """
import sys
from pathlib import Path
from freehold.db import open_database
from freehold.vault import LocalStore, Vault
home, source, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
clock = lambda: 1_800_000_000_000_000
vault = Vault(LocalStore(home / "vault"), open_database(home / "vault.db", "vault", clock), home / "spool", clock)
with vault.part(name) as part:
    part.append(source.read_bytes())
    print("ready", flush=True)
    sys.stdin.readline()
    print(vault.publish(part).fresh, flush=True)
"""


def test_two_processes_that_publish_one_blob_at_once_store_it_once(tmp_path: Path, clock: Clock) -> None:
    database = open_database(tmp_path / "vault.db", "vault", clock)
    data = os.urandom(5 * BLOCK + 3)
    source = tmp_path / "source"
    source.write_bytes(data)
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(source)]
    writers = [subprocess.Popen([*command, f"w{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(2)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        fresh = sorted(writer.communicate(timeout=30)[0].strip() for writer in writers)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert fresh == ["False", "True"]
    vault = Vault(LocalStore(tmp_path / "vault"), database, tmp_path / "spool", clock)
    assert b"".join(vault.read(sha256(data))) == data
    assert vault.verify().ok
    assert vault.stats().containers == 1
    database.close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vault, dict[Digest, bytes]]]:
    """One vault with a blob of every size, read only."""
    home = tmp_path_factory.mktemp("shelf")
    database = open_database(home / "vault.db", "vault", Clock())
    vault = Vault(LocalStore(home / "vault"), database, home / "spool", Clock())
    contents = [os.urandom(size) for size in SIZES]
    yield vault, {vault.put(content).sha256: content for content in contents}
    database.close()


@given(
    which=st.integers(0, len(SIZES) - 1),
    offset=st.integers(0, 10 * BLOCK),
    length=st.none() | st.integers(0, 10 * BLOCK),
    raw=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_range_read_planned_or_pread_is_that_slice(
    shelf: tuple[Vault, dict[Digest, bytes]], which: int, offset: int, length: int | None, raw: bool
) -> None:
    vault, contents = shelf
    vault.read_policy = "scrubbed" if raw else "verify"
    digest, content = sorted(contents.items())[which]
    offset = min(offset, len(content))
    expected = content[offset:] if length is None else content[offset : offset + length]
    assert b"".join(vault.read(digest, offset, length)) == expected
    planned = vault.plan(digest, offset, length)
    assert sum(e.length for e in planned) == len(expected)
    assert all(isinstance(e, FileExtent) for e in planned) == (raw or not planned)
    got = b""
    for extent in planned:
        if isinstance(extent, FileExtent):
            got += extent.path.read_bytes()[extent.offset : extent.offset + extent.length]
        else:
            got += b"".join(vault.decode(extent))
    assert got == expected
    with vault.open(digest) as file:
        assert file.pread(offset, len(content) if length is None else length) == expected


def test_publishing_and_removing_the_same_blob_from_many_threads_ends_whole(local: Vault) -> None:
    data = os.urandom(BLOCK + 1)
    digest = sha256(data)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(12):
                if (number + turn) % 3:
                    local.put(data)
                else:
                    local.remove(digest)
        except BaseException as error:  # noqa: BLE001 - reported below: a thread has nobody to raise to
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    local.put(data)
    assert b"".join(local.read(digest)) == data
    assert local.verify().ok
    assert local.remove(digest)
    assert list(local._ground.store.list()) == []
    assert local.stats().objects == 0


def test_without_the_package_blake3_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["blake3"] = None
from freehold.errors import FreeholdError
try:
    import freehold.vault
except FreeholdError as error:
    print(error.code, error.hint)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("vault-blake3-unavailable ")
    assert "pip install blake3" in said
