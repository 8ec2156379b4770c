"""Death and full disks at every durable step: what was committed stays, the rest leaves only orphans, a second run ends well.

The story below runs the vault's whole life. It is run once with the log of failpoints on, and then once for each passage in
that log, with that passage armed. As a script, this file runs the story in the home that it is given.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from freehold import failpoints
from freehold.db import open_database
from freehold.errors import FreeholdError
from freehold.nouns.digest import Digest
from freehold.vault import LocalStore, Vault

BLOCK = 262_144
LARGE = bytes(range(256)) * (5 * BLOCK // 256) + b"tail"
SMALL = b"a small file"
COPIED = b"a file of somebody else" * 1000
REMOVED = b"bytes that nobody needs any more"
KILLED = -9


def now() -> int:
    return time.time_ns() // 1000


def digest(data: bytes) -> Digest:
    return Digest.sha256(hashlib.sha256(data).hexdigest())


def make(home: Path) -> Vault:
    return Vault(LocalStore(home / "vault"), open_database(home / "vault.db", "vault", now), home / "spool", now)


def story(vault: Vault, home: Path) -> None:
    """What a pull does, and then some; may be run again after any failure, as a user would."""
    if not vault.has(digest(LARGE)):
        with vault.part(digest(LARGE).hex) as part:
            for at in range(part.size, len(LARGE), 2 * BLOCK):
                part.append(LARGE[at : at + 2 * BLOCK])
            part.sync()
            vault.publish(part, expected=digest(LARGE))
    vault.put(SMALL, expected=digest(SMALL))
    vault.publish(home / "mine.bin", expected=digest(COPIED), move=False)
    if not (home / "done").exists():
        vault.put(REMOVED)
        vault.remove(digest(REMOVED))
        (home / "done").touch()
    sidecar = home / "vault" / "loose" / digest(SMALL).hex[:2] / f"{digest(SMALL).hex}.table"
    sidecar.unlink(missing_ok=True)
    vault.verify()
    vault.rebuild()


def check_committed(vault: Vault) -> None:
    """Whatever a reader sees is whole; whatever it does not see is absent."""
    vault.read_policy = "verify"
    for data in (LARGE, SMALL, COPIED, REMOVED):
        if vault.has(digest(data)):
            try:
                assert b"".join(vault.read(digest(data))) == data
            except FreeholdError as error:
                assert (error.code, data) == ("vault-sidecar-invalid", SMALL), "the story itself drops this sidecar"
        else:
            assert digest(data) not in set(vault.digests())


def check_nothing_is_fetched_twice(vault: Vault, passed: list[str]) -> None:
    """What was appended before death is in the vault or still in the part."""
    appended = sum(point.startswith("vault.part-appended@") for point in passed) * 2 * BLOCK
    if not vault.has(digest(LARGE)):
        with vault.part(digest(LARGE).hex) as part:
            assert part.size == min(appended, len(LARGE))


def check_end(vault: Vault, home: Path) -> None:
    """After a second run nothing tells that there was a first."""
    vault.sweep(grace_us=-1_000_000)
    assert set(vault.digests()) == {digest(LARGE), digest(SMALL), digest(COPIED)}
    report = vault.verify()
    assert report.ok
    assert not report.mended
    for data in (LARGE, SMALL, COPIED):
        assert b"".join(vault.read(digest(data))) == data
    assert not vault.has(digest(REMOVED))
    keys = {item.key for item in vault._ground.store.list()}
    assert len(keys) == 6, keys
    assert not list((home / "vault" / "tmp").iterdir())
    assert not list((home / "spool").glob("*.part"))
    before = vault.stats()
    vault.rebuild()
    assert vault.stats() == before


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "mine.bin").write_bytes(COPIED)
    return tmp_path


def passages(log: Path) -> list[str]:
    """`name@n` for each passage, in order."""
    seen: Counter[str] = Counter()
    named = []
    for name in log.read_text("utf-8").split():
        seen[name] += 1
        named.append(f"{name}@{seen[name]}")
    return named


def run(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, str(home)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)


def test_the_check_after_a_crash_notices_a_blob_that_is_visible_but_not_whole(home: Path) -> None:
    """The control of the tests below."""
    vault = make(home)
    story(vault, home)
    check_end(vault, home)
    payload = vault.materialise(digest(LARGE))
    payload.chmod(0o644)
    os.truncate(payload, len(LARGE) - 1)
    with pytest.raises((AssertionError, FreeholdError)):
        check_committed(vault)
    payload.unlink()
    with pytest.raises((AssertionError, FreeholdError)):
        check_committed(vault)
    with pytest.raises((AssertionError, FreeholdError)):
        check_end(vault, home)
    vault._ground.database.close()


def test_bytes_and_names_are_synced_before_the_one_commit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kill -9 cannot show: the order of fsync, link and commit that a power cut would need."""
    vault = make(home)
    steps: list[tuple[str, int]] = []
    real_fsync, real_link, real_replace = os.fsync, os.link, Path.replace

    def fsync(fd: int) -> None:
        real_fsync(fd)
        steps.append(("fsync", os.fstat(fd).st_ino))

    def replace(source: Path, target: Path) -> Path:
        steps.append(("name", source.stat().st_ino))
        return real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", lambda *a, **k: (steps.append(("link", Path(a[0]).stat().st_ino)), real_link(*a, **k)))
    monkeypatch.setattr(Path, "replace", replace)
    event.listen(vault._ground.database._engine, "commit", lambda _: steps.append(("commit", 0)))
    with vault.part("p") as part:
        part.append(LARGE)
        vault.publish(part)
    payload = vault.materialise(digest(LARGE))
    folder, file, table = (p.stat().st_ino for p in (payload.parent, payload, payload.with_suffix(".table")))
    order = [step for step in steps if step[1] in (folder, file, table, 0)]
    assert order == [
        ("fsync", file),
        ("link", file),
        ("name", file),
        ("fsync", folder),
        ("fsync", table),
        ("name", table),
        ("fsync", folder),
        ("commit", 0),
    ]
    assert [s for s in steps if s[0] == "commit"] == [("commit", 0)]
    vault._ground.database.close()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_kill_at_every_failpoint_loses_nothing_committed_and_a_second_run_ends_well(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = prepared(tmp_path / "first")
    done = run(first, FREEHOLD_FAILPOINT_LOG=str(log))
    assert done.returncode == 0, done.stderr
    points = passages(log)
    assert len({p.partition("@")[0] for p in points}) >= 15
    killed = 0
    for number, point in enumerate(points):
        home = prepared(tmp_path / f"home{number}")
        victim = run(home, FREEHOLD_FAILPOINTS=f"{point}=kill")
        assert victim.returncode == KILLED, f"{point}: {victim.stderr}"
        killed += 1
        vault = make(home)
        try:
            check_committed(vault)
            check_nothing_is_fetched_twice(vault, points[: number + 1])
            story(vault, home)
            check_end(vault, home)
        except BaseException as error:
            error.add_note(f"killed at {point}")
            raise
        finally:
            vault._ground.database.close()
    print(f"killed at {killed} passages of {len({p.partition('@')[0] for p in points})} failpoints; none lost anything")
    assert killed == len(points)


def prepared(home: Path) -> Path:
    home.mkdir()
    (home / "mine.bin").write_bytes(COPIED)
    return home


class Armed:
    """Failpoints of this process, armed for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **actions: str) -> None:
        monkeypatch.setattr(failpoints, "_PASSED", Counter())
        monkeypatch.setattr(failpoints, "_ARMED", actions)


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All passages of the story, the opening of the database apart."""
    home, log = prepared(tmp_path / "first"), tmp_path / "log"
    vault = make(home)
    monkeypatch.setattr(failpoints, "_LOG", str(log))
    monkeypatch.setattr(failpoints, "_PASSED", Counter())
    story(vault, home)
    monkeypatch.setattr(failpoints, "_LOG", None)
    vault._ground.database.close()
    return passages(log)


@pytest.mark.parametrize(
    ("action", "code"), [("enospc", "vault-disk-full"), pytest.param("eio", "vault-io", marks=pytest.mark.faults)]
)
def test_a_failing_write_at_every_failpoint_is_a_clear_error_and_loses_nothing(
    tmp_path: Path, points: list[str], monkeypatch: pytest.MonkeyPatch, action: str, code: str
) -> None:
    for number, point in enumerate(points):
        home = prepared(tmp_path / f"home{number}")
        vault = make(home)
        try:
            kept = vault.put(b"kept from before").sha256
            with monkeypatch.context() as patch:
                Armed(patch, **{point: action})
                with pytest.raises(FreeholdError) as caught:
                    story(vault, home)
                assert caught.value.code == code
                assert caught.value.hint
                assert b"".join(vault.read(kept)) == b"kept from before"
            check_committed(vault)
            story(vault, home)
            assert vault.remove(kept)
            check_end(vault, home)
        except BaseException as error:
            error.add_note(f"{action} at {point}")
            raise
        finally:
            vault._ground.database.close()
    print(f"{action} at {len(points)} passages")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"not run: cannot mount a small disk ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.faults
def test_a_really_full_disk_is_a_clean_failure_readers_go_on_and_the_part_is_continued(small_disk: Path) -> None:
    vault = make(small_disk)
    vault.reserve_bytes = -(1 << 40)  # the check of free room is out of the way: the kernel itself refuses
    kept = os.urandom(BLOCK + 1)
    assert vault.put(kept).fresh
    large = os.urandom(8 * BLOCK)
    ballast = small_disk / "ballast"
    with vault.part("large") as part:
        part.append(large[: 4 * BLOCK])
        _fill_disk(ballast)
        with pytest.raises(FreeholdError) as caught:
            part.append(large[4 * BLOCK :])
        assert caught.value.code == "vault-disk-full"
        assert 4 * BLOCK <= part.size < len(large)
    assert b"".join(vault.read(digest(kept))) == kept
    assert vault.verify(max_age_us=1 << 60).ok
    with pytest.raises(FreeholdError) as caught:
        vault.put(os.urandom(1000))
    assert caught.value.code == "vault-disk-full"
    ballast.unlink()
    with vault.part("large") as part:
        part.append(large[part.size :])
        _fill_disk(ballast)
        with pytest.raises(FreeholdError) as caught:
            vault.publish(part, expected=digest(large))
        assert caught.value.code == "vault-disk-full"
        assert not vault.has(digest(large))
        ballast.unlink()
        assert vault.publish(part, expected=digest(large)).fresh
    assert b"".join(vault.read(digest(large))) == large
    vault.sweep(grace_us=-1_000_000)
    assert vault.verify().ok
    assert {item.key for item in vault._ground.store.list()} == {
        key for d in (digest(kept), digest(large)) for key in (f"loose/{d.hex[:2]}/{d.hex}", f"loose/{d.hex[:2]}/{d.hex}.table")
    }
    vault._ground.database.close()


@pytest.mark.faults
def test_removal_works_on_a_full_disk_and_makes_room(small_disk: Path) -> None:
    vault = make(small_disk)
    vault.reserve_bytes = BLOCK
    data = os.urandom(6 * BLOCK)
    vault.put(data)
    with pytest.raises(FreeholdError) as caught, vault.part("p", expected_size=12 * BLOCK):
        pass
    assert caught.value.code == "vault-disk-full"
    with pytest.raises(FreeholdError), vault.part("p") as part:
        while True:
            part.append(os.urandom(BLOCK // 4))
    assert vault.remove(digest(data))
    with vault.part("p") as part:
        part.append(os.urandom(4 * BLOCK))
        stored = vault.publish(part)
    assert vault.has(stored.sha256)
    vault._ground.database.close()


@pytest.mark.faults
def test_a_spool_on_another_disk_is_copied_from_and_compared(small_disk: Path, tmp_path: Path) -> None:
    database = open_database(tmp_path / "vault.db", "vault", now)
    vault = Vault(LocalStore(tmp_path / "vault"), database, small_disk / "spool", now)
    with vault.part("p") as part:
        part.append(LARGE)
        vault.publish(part, expected=digest(LARGE))
    mine = tmp_path / "mine.bin"
    mine.write_bytes(COPIED)
    vault.publish(mine)
    assert not mine.exists()
    for data in (LARGE, COPIED):
        assert b"".join(vault.read(digest(data))) == data
    assert vault.verify().ok
    database.close()


def _fill_disk(path: Path) -> None:
    """Until not a byte is left."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC


if __name__ == "__main__":
    at = Path(sys.argv[1])
    story(make(at), at)
