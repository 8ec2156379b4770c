"""Speed of the vault's ways in and out, in MB (1,000,000 bytes) per CPU-second of the whole process, and per second of wall time.

CPU time (user and kernel, both also shown apart) is what a shared machine blurs least. The file is random bytes in the page
cache. SHA-256 and BLAKE3 alone are measured beside, since they bound what ingest can reach: 1 / (1/sha256 + 1/blake3).
Run: python benchmarks/vault/ingest.py [--mb 512] [--home DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from freehold.db import open_database
from freehold.vault import LocalStore, Vault

_BLOCK = 262_144


def clock() -> int:
    return time.time_ns() // 1000


def measure(name: str, size: int, act: Callable[[], object], rounds: int = 3, again: Callable[[], object] | None = None) -> None:
    """Print the best of `rounds` by CPU time; `again` prepares each round after the first and is not measured."""
    best: tuple[float, ...] = (float("inf"),)
    for number in range(rounds):
        if number and again is not None:
            again()
        before, wall = os.times(), time.perf_counter()
        act()
        elapsed, after = time.perf_counter() - wall, os.times()
        user, system = after.user - before.user, after.system - before.system
        best = min(best, (user + system, user, system, elapsed))
    cpu, user, system, elapsed = best
    split = f"(user {user:5.2f} s, kernel {system:5.2f} s)"
    print(f"{name:<36} {size / 1e6 / cpu:7.0f} MB/CPU-s  {split} {size / 1e6 / elapsed:7.0f} MB/s wall")


def drain(pieces: object) -> None:
    for _ in pieces:  # type: ignore[attr-defined]
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=512, help="size of the file in MiB")
    parser.add_argument("--home", type=Path, help="folder for the vault (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.home) as folder:
        run(Path(folder), arguments.mb << 20)


def run(home: Path, size: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {size >> 20} MiB")
    block = os.urandom(_BLOCK)
    count = 2048
    measure("sha256 alone", count * _BLOCK, lambda: [hashlib.sha256(block).digest() for _ in range(count)])
    measure("blake3 of 256 KiB blocks alone", count * _BLOCK, lambda: [blake3(block).digest() for _ in range(count)])
    vault = Vault(LocalStore(home / "vault"), open_database(home / "vault.db", "vault", clock), home / "spool", clock)
    source = home / "source"
    with source.open("wb") as file:
        for _ in range(size // (1 << 20)):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
    stored = None

    def publish(*, move: bool) -> None:
        nonlocal stored
        stored = vault.publish(source, move=move)

    def forget() -> None:
        vault.remove(stored.sha256)

    def take_back() -> None:
        source.hardlink_to(vault.materialise(stored.sha256))
        forget()

    publish(move=False)
    assert stored is not None
    forget()
    measure("publish, copied (move=False)", size, lambda: publish(move=False), again=forget)
    forget()
    measure("publish, taken over (move=True)", size, lambda: publish(move=True), again=take_back)
    measure("verify (full: sha256 and blake3)", size, lambda: vault.verify(stored.sha256))
    measure("read, scrubbed (as it lies)", size, lambda: drain(vault.read(stored.sha256)))
    vault.read_policy = "verify"
    measure("read, verify (each block hashed)", size, lambda: drain(vault.read(stored.sha256)))
    with vault.open(stored.sha256) as file:
        offsets = [int.from_bytes(os.urandom(6)) % (size - 4096) for _ in range(2000)]
        start = time.process_time()
        for offset in offsets:
            file.pread(offset, 4096)
        print(f"{'random 4 KiB read, verified':<42} {(time.process_time() - start) / len(offsets) * 1e6:9.0f} CPU-us")
    small = [os.urandom(10_000) for _ in range(200)]
    start, wall = time.process_time(), time.perf_counter()
    for data in small:
        vault.put(data)
    cpu, elapsed = time.process_time() - start, time.perf_counter() - wall
    print(f"{'put of 10 kB':<42} {cpu / len(small) * 1e3:9.2f} CPU-ms {elapsed / len(small) * 1e3:9.2f} ms wall")


if __name__ == "__main__":
    main()
