"""Damage is found, named and never served; what crashes leave is adopted or swept; a lost index comes back from the sidecars."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.db import open_database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.nouns.files import DecodeExtent, FileExtent
from freehold.nouns.progress import Progress
from freehold.vault import BadBlock, LocalStore, Vault

BLOCK = 262_144


def now() -> int:
    return time.time_ns() // 1000


@dataclass
class House:
    """A vault on disk and what a test needs to hurt it."""

    home: Path
    vault: Vault

    def payload(self, digest: Digest) -> Path:
        return self.home / "vault" / "loose" / digest.hex[:2] / digest.hex

    def sidecar(self, digest: Digest) -> Path:
        return self.payload(digest).with_suffix(".table")

    def index(self) -> sqlite3.Connection:
        return sqlite3.connect(self.home / "vault.db")

    def reopened(self) -> Vault:
        """As the next process finds it, with a new and empty index."""
        self.vault._ground.database.close()
        for path in self.home.glob("vault.db*"):
            path.unlink()
        self.vault = make(self.home)
        return self.vault


def make(home: Path) -> Vault:
    return Vault(LocalStore(home / "vault"), open_database(home / "vault.db", "vault", now), home / "spool", now)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, make(tmp_path))
    yield house
    house.vault._ground.database.close()


def flip(path: Path, bit: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def code_of(error: pytest.ExceptionInfo[FreeholdError]) -> str:
    return error.value.code


def test_each_of_200_flipped_bits_is_found_by_verify_and_none_is_served_under_the_policy_verify(house: House) -> None:
    dice = random.Random(20)  # noqa: S311 - a fixed seed, so that a failure repeats
    vault = house.vault
    vault.read_policy = "verify"
    data = {}
    for size in (1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 9, 5000, 77, 2 * BLOCK - 1):
        content = dice.randbytes(size)
        data[vault.put(content).sha256] = content
    found = served = 0
    for _ in range(20):
        flips = {digest: dice.randrange(len(content) * 8) for digest, content in data.items()}
        for digest, bit in flips.items():
            flip(house.payload(digest), bit)
        for digest, bit in flips.items():
            served += _served(vault, digest, data[digest], bit // 8)
        report = vault.verify()
        assert not report.ok
        named = {damage.sha256: damage.blocks for damage in report.damage}
        for digest, bit in flips.items():
            block = bit // 8 // BLOCK
            found += named.get(digest) == (BadBlock(block, block * BLOCK, "mismatch"),)
            flip(house.payload(digest), bit)
        assert vault.verify().ok
    print(f"200 flips: {found} found by verify, {served} served")
    assert (found, served) == (200, 0)
    for digest, content in data.items():
        assert b"".join(vault.read(digest)) == content


def _served(vault: Vault, digest: Digest, content: bytes, at: int) -> int:
    """1 if any wrong byte came out, by whichever way of reading."""
    came = b""
    with pytest.raises(FreeholdError) as caught:
        for piece in vault.read(digest):
            came += piece
    assert code_of(caught) == "vault-corrupt-block"
    assert caught.value.context["index"] == at // BLOCK
    if not content.startswith(came):
        return 1
    with vault.open(digest) as file:
        with pytest.raises(FreeholdError):
            file.pread(at, 1)
        good = (at // BLOCK + 1) * BLOCK
        if file.pread(good, 50) != content[good : good + 50]:
            return 1
    for extent in vault.plan(digest):
        assert isinstance(extent, DecodeExtent)
        with pytest.raises(FreeholdError):
            list(vault.decode(extent))
    return 0


def test_without_verification_the_same_flip_would_be_served(house: House) -> None:
    """The control, and the documented gap of `scrubbed`: fresh containers are given as they are."""
    digest = house.vault.put(b"a" * 1000).sha256
    flip(house.payload(digest), 800)
    assert b"".join(house.vault.read(digest)) != b"a" * 1000
    assert not house.vault.verify().ok
    with pytest.raises(FreeholdError) as caught:
        list(house.vault.read(digest))
    assert code_of(caught) == "vault-corrupt-block"


def test_a_damaged_blob_is_quarantined_its_good_blocks_are_read_and_publishing_again_heals_it(house: House) -> None:
    vault = house.vault
    content = os.urandom(3 * BLOCK)
    digest = vault.put(content).sha256
    flip(house.payload(digest), (BLOCK + 5) * 8)
    assert [d.reason for d in vault.verify(digest).damage] == ["blocks"]
    assert not vault.has(digest)
    assert vault.size(digest) == len(content)
    assert list(vault.digests()) == [digest]
    assert vault.stats().quarantined == 1
    assert b"".join(vault.read(digest, 2 * BLOCK)) == content[2 * BLOCK :]
    with pytest.raises(FreeholdError) as caught:
        vault.materialise(digest)
    assert code_of(caught) == "vault-corrupt-block"
    assert house.payload(digest).exists()
    assert vault.put(content).fresh
    assert vault.has(digest)
    assert vault.verify().ok
    assert vault.stats().quarantined == 0
    assert vault.materialise(digest).read_bytes() == content


def test_cut_short_lengthened_and_lost_files_are_each_named(house: House) -> None:
    vault = house.vault
    short, long, gone = (vault.put(os.urandom(2 * BLOCK + n)).sha256 for n in range(3))
    for digest in (short, long):
        house.payload(digest).chmod(0o644)
    os.truncate(house.payload(short), BLOCK + 3)
    with house.payload(long).open("ab") as file:
        file.write(b"x")
    house.payload(gone).unlink()
    for digest, code in ((short, "vault-corrupt-block"), (long, "vault-corrupt-block"), (gone, "vault-missing")):
        for ask in (vault.plan, vault.read, vault.materialise):
            with pytest.raises(FreeholdError) as caught:
                ask(digest)
            assert code_of(caught) == code
    report = vault.verify()
    assert {d.sha256: d.reason for d in report.damage} == {short: "length", long: "length", gone: "missing"}
    assert [b.index for d in report.damage if d.sha256 == short for b in d.blocks] == [1]
    with pytest.raises(FreeholdError) as caught:
        vault.materialise(gone)
    assert code_of(caught) == "vault-missing"


def test_what_the_disk_cannot_read_is_an_io_error_and_a_bad_block(house: House) -> None:
    """A folder in the file's place: it opens, and every read of it fails."""
    vault = house.vault
    vault.read_policy = "verify"
    digest = vault.put(b"x" * 100).sha256
    house.payload(digest).unlink()
    house.payload(digest).mkdir()
    with pytest.raises(FreeholdError) as caught:
        list(vault.read(digest))
    assert code_of(caught) == "vault-io"
    (damage,) = vault.verify().damage
    assert damage.blocks == (BadBlock(0, 0, "unreadable"),)


def test_a_damaged_or_lost_sidecar_stops_verified_reads_until_verify_writes_it_anew(house: House) -> None:
    vault = house.vault
    vault.read_policy = "verify"
    content = os.urandom(BLOCK + 1)
    digest = vault.put(content).sha256
    original = house.sidecar(digest).read_bytes()
    for hurt in (lambda p: flip(p, 700), lambda p: p.unlink(), lambda p: p.write_bytes(b""), lambda p: os.truncate(p, 100)):
        house.sidecar(digest).chmod(0o644)
        hurt(house.sidecar(digest))
        with pytest.raises(FreeholdError) as caught:
            list(vault.read(digest))
        assert code_of(caught) == "vault-sidecar-invalid"
        report = vault.verify()
        assert report.ok
        assert report.mended == (digest,)
        assert house.sidecar(digest).read_bytes() == original
        assert b"".join(vault.read(digest)) == content
    flip(house.sidecar(digest), 700)
    flip(house.payload(digest), 700)
    assert [d.reason for d in vault.verify().damage] == ["sidecar"]


def test_a_sidecar_of_other_bytes_is_not_believed(house: House) -> None:
    """A table that is valid in itself, put beside the wrong payload, or an index that says another object."""
    vault = house.vault
    vault.read_policy = "verify"
    one, two = vault.put(b"one").sha256, vault.put(b"two").sha256
    original = house.sidecar(one).read_bytes()
    house.sidecar(one).chmod(0o644)
    house.sidecar(one).write_bytes(house.sidecar(two).read_bytes())
    with pytest.raises(FreeholdError) as caught:
        vault.read(one)
    assert code_of(caught) == "vault-sidecar-invalid"
    house.sidecar(one).write_bytes(original)
    assert b"".join(vault.read(one)) == b"one"
    index = house.index()
    index.execute(
        "UPDATE segments SET object_id = (SELECT object_id FROM segments WHERE sha256 = ?) WHERE sha256 = ?", (str(two), str(one))
    )
    index.commit()
    index.close()
    with pytest.raises(FreeholdError) as caught:
        vault.read(one)
    assert code_of(caught) == "vault-index-invalid"
    assert vault.verify().ok
    vault.rebuild()
    assert b"".join(vault.read(one)) == b"one"


def test_verify_skips_what_was_verified_lately_and_tells_how_far_it_is(house: House) -> None:
    vault = house.vault
    digests = {vault.put(os.urandom(3 * BLOCK)).sha256 for _ in range(3)}
    heard: list[Progress] = []
    report = vault.verify(max_age_us=3600 * 1_000_000, listener=heard.append)
    assert (report.checked, report.skipped, heard) == (0, 3, [])
    report = vault.verify(listener=heard.append)
    assert (report.checked, report.skipped, report.bytes) == (3, 0, 9 * BLOCK)
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert heard[-1].done == heard[-1].total == 9 * BLOCK
    assert {p.item for p in heard} == {str(d) for d in digests}


def test_a_lost_index_is_rebuilt_from_the_sidecars_alone(house: House) -> None:
    contents = [b"", b"x", os.urandom(2 * BLOCK + 1), os.urandom(500)]
    digests = [house.vault.put(content).sha256 for content in contents]
    before = house.vault.stats()
    vault = house.reopened()
    assert vault.stats().files == 0
    house.sidecar(digests[2]).unlink()
    flip(house.sidecar(digests[3]), 99)
    flip(house.payload(digests[3]), 99)
    report = vault.rebuild()
    assert (report.files, report.mended, report.lost) == (3, (digests[2],), (digests[3],))
    for digest, content in zip(digests[:3], contents[:3], strict=True):
        assert vault.has(digest)
        assert b"".join(vault.read(digest)) == content
    assert isinstance(vault.plan(digests[2])[0], DecodeExtent), "nothing is trusted before it is verified"
    assert not vault.has(digests[3])
    vault.put(contents[3])
    assert vault.verify().ok
    assert isinstance(vault.plan(digests[2])[0], FileExtent)
    assert vault.stats() == before


def test_rebuilding_a_healthy_index_changes_nothing_that_a_reader_sees(house: House) -> None:
    vault = house.vault
    digests = [vault.put(os.urandom(n)).sha256 for n in (10, 20, BLOCK)]
    vault.lease("job", digests, 10**12)
    before = vault.stats()
    vault.rebuild()
    assert vault.stats() == before
    assert sorted(digests) == list(vault.digests())
    with pytest.raises(FreeholdError) as caught:
        vault.remove(digests[0])
    assert code_of(caught) == "vault-leased"


def test_sweep_adopts_whole_orphans_and_removes_only_what_is_stale(house: House) -> None:
    whole, bare, rotten = (house.vault.put(os.urandom(1000)).sha256 for _ in range(3))
    vault = house.reopened()
    house.sidecar(bare).unlink()
    house.sidecar(rotten).unlink()
    flip(house.payload(rotten), 5)
    (house.home / "vault" / "tmp" / "left").write_bytes(b"half a put")
    (house.home / "spool" / "copy-dead.part").write_bytes(b"half a copy")
    with vault.part("resumable") as part:
        part.append(b"half a download")
    with vault.part("copy-alive") as alive:
        report = vault.sweep()
        assert (set(report.adopted), report.removed) == ({whole, bare}, 0)
        assert house.payload(rotten).exists()
        report = vault.sweep(grace_us=-1_000_000)
        assert (report.adopted, report.removed) == ((), 3)
        assert alive.path.exists()
    assert not house.payload(rotten).exists()
    assert set(vault.digests()) == {whole, bare}
    assert vault.verify().ok
    with vault.part("resumable") as part:
        assert part.size == len(b"half a download")


def test_a_part_that_the_vault_shares_may_be_published_again_but_not_written(house: House) -> None:
    """As a crash between commit and clean-up leaves it."""
    vault = house.vault
    digest = vault.put(b"complete").sha256
    (house.home / "spool" / "p.part").hardlink_to(house.payload(digest))
    with vault.part("p") as part:
        assert part.complete
        assert part.size == 8
        for write in (lambda: part.append(b"!"), lambda: part.truncate(0)):
            with pytest.raises(FreeholdError) as caught:
                write()
            assert code_of(caught) == "vault-part-complete"
        assert not vault.publish(part, expected=digest).fresh
    assert not part.path.exists()
    assert b"".join(vault.read(digest)) == b"complete"
    (house.home / "spool" / "p.part").hardlink_to(house.payload(digest))
    assert vault.sweep().removed == 1
    assert vault.has(digest)


def test_a_file_that_grows_while_it_is_read_is_refused(house: House, tmp_path: Path) -> None:
    path = tmp_path / "growing.bin"
    path.write_bytes(b"x" * (3 * BLOCK * 4))

    def grow(_: Progress) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(FreeholdError) as caught:
        house.vault.publish(path, move=False, listener=grow)
    assert code_of(caught) == "vault-changed"
    assert house.vault.stats().files == 0
    assert not list((house.home / "spool").glob("*.part"))


def test_what_is_no_regular_file_is_refused(house: House, tmp_path: Path) -> None:
    with pytest.raises(FreeholdError) as caught:
        house.vault.publish(tmp_path / "nowhere")
    assert code_of(caught) == "vault-missing"
    for make_it in (lambda p: p.mkdir(), os.mkfifo):
        path = tmp_path / "odd"
        make_it(path)
        with pytest.raises(FreeholdError) as caught:
            house.vault.publish(path)
        assert code_of(caught) == "vault-io"
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_write_that_would_touch_the_reserve_does_not_begin(house: House, tmp_path: Path) -> None:
    vault = house.vault
    kept = vault.put(b"kept").sha256
    mine = tmp_path / "mine"
    mine.write_bytes(b"data")
    vault.reserve_bytes = 1 << 62
    for write in (lambda: vault.put(b"more"), lambda: vault.publish(mine, move=False), lambda: vault.part("p", expected_size=10)):
        with pytest.raises(FreeholdError, match="reserved") as caught:
            write()
        assert code_of(caught) == "vault-disk-full"
    with vault.part("q") as part, pytest.raises(FreeholdError, match="reserved"):
        part.append(b"x")
    assert b"".join(vault.read(kept)) == b"kept"
    assert vault.remove(kept), "removal needs no room"
    vault.reserve_bytes = 0
    with vault.part("p", expected_size=10) as part:
        part.append(b"x")


def test_ids_of_objects_do_not_know_what_the_bytes_are_called(house: House) -> None:
    one = house.vault.put(b"same", git=True)
    with house.vault.part("model.BF16.safetensors") as part:
        part.append(b"same")
        two = house.vault.publish(part)
    assert one.object_id == two.object_id
    assert one.sha256.hex == hashlib.sha256(b"same").hexdigest()
