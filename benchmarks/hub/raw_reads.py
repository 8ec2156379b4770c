"""Raw reads of the hub: processor time of the server per GiB, whole and ranged, beside a plain file response; and small files.

    python benchmarks/hub/raw_reads.py [--mib 512] [--repeat 3] [--snapshot]

Each server runs in a process of its own; its processor time (user + system, threads included) is read from /proc before
and after. The client is a plain socket that throws the bytes away, so that its cost, which is counted apart, does not hide the
server's. `plain` is Starlette's FileResponse under uvicorn with h11 on the same file: what a framework does by itself.
`nginx` runs with sendfile on, if it is installed. `verify` is the server under vault.read_policy = verify, which hashes blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PLAIN = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route
async def get(request): return FileResponse(sys.argv[2])
app = Starlette(routes=[Route("/{p:path}", get)])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, http="h11", loop="asyncio")
"""
_NGINX = """
daemon off; {user}worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t;
  fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
"""
SMALL = 200


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its living children, in seconds."""
    pids = [pid]
    with contextlib.suppress(OSError):
        pids += [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    ticks = 0
    for one in pids:
        fields = Path(f"/proc/{one}/stat").read_text("ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def fetch(port: int, path: str, connection: socket.socket | None = None, extra: str = "") -> int:
    """GET over a kept connection (or one of its own); bytes of the body."""
    with contextlib.ExitStack() as stack:
        client = connection or stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        head, _, rest = head.partition(b"\r\n\r\n")
        assert head.split()[1] in (b"200", b"206"), head
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        room, got = memoryview(bytearray(1 << 20)), len(rest)
        while got < length:
            received = client.recv_into(room)
            assert received
            got += received
    return got


@contextlib.contextmanager
def process(argv: list[str], ready: Callable[[], bool], env: dict[str, str]) -> Iterator[int]:
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=os.environ | env)
    try:
        until = time.monotonic() + 30
        while not ready():
            if child.poll() is not None or time.monotonic() > until:
                sys.exit(f"{argv[0]} did not start")
            time.sleep(0.05)
        yield child.pid
    finally:
        child.terminate()
        child.wait(timeout=15)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def measure(pid: int, port: int, path: str, size: int, repeat: int) -> dict[str, float]:
    """Medians over `repeat` of whole reads, then of reads in ranges of 8 MiB."""
    fetch(port, path)
    found: dict[str, list[float]] = {"whole": [], "ranged": [], "whole MB/s": []}
    for _ in range(repeat):
        before, began = cpu_seconds(pid), time.monotonic()
        fetch(port, path)
        found["whole"].append((cpu_seconds(pid) - before) / size * 2**30)
        found["whole MB/s"].append(size / 1e6 / (time.monotonic() - began))
        before = cpu_seconds(pid)
        with socket.create_connection(("127.0.0.1", port)) as kept:
            for start in range(0, size, 8 << 20):
                fetch(port, path, kept, f"Range: bytes={start}-{min(size, start + (8 << 20)) - 1}\r\n")
        found["ranged"].append((cpu_seconds(pid) - before) / size * 2**30)
    return {name: round(sorted(values)[len(values) // 2], 3) for name, values in found.items()}


def measure_small(pid: int, port: int) -> dict[str, float]:
    """HEAD and GET of each of 200 small files over one connection, as a snapshot does."""
    before, began = cpu_seconds(pid), time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as kept:
        for number in range(SMALL):
            kept.sendall(f"HEAD /bench/small/resolve/main/f{number}.json HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += kept.recv(65536)
            fetch(port, f"/bench/small/resolve/main/f{number}.json", kept)
    spent = cpu_seconds(pid) - before
    return {"cpu us/request": round(spent / (2 * SMALL) * 1e6), "seconds": round(time.monotonic() - began, 3)}


_SNAPSHOT = """
import sys, time
from huggingface_hub import snapshot_download
began = time.monotonic()
snapshot_download("bench/small")
print(round(time.monotonic() - began, 3))
"""


def snapshot_seconds(port: int, folder: Path) -> float:
    """snapshot_download of the 200 small files by the stock client, its import apart."""
    from freehold.procs.venvs import client_venv

    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "freehold" / "clients"
    python = client_venv(cache, ["huggingface_hub==2.4.0"])
    env = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(folder), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([python, "-c", _SNAPSHOT], env=env, capture_output=True, text=True, check=True, timeout=300)
    return float(done.stdout)


def house_port(home: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(json.loads((home / "run" / "server.json").read_text())["url"].rpartition(":")[2])
    return None


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mib", type=int, default=512)
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--snapshot", action="store_true", help="also by the stock huggingface_hub 2.4.0, in a venv of its own")
    asked = options.parse_args()
    size = asked.mib << 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home, blob = folder / "home", folder / "blob"
        from freehold.app import house
        from freehold.testing.kept import keep

        blob.write_bytes(os.urandom(1 << 20) * asked.mib)
        with house(str(home)) as opened:
            keep(opened.parts, "bench/large", {"model.safetensors": blob.read_bytes()})
            keep(opened.parts, "bench/small", {f"f{n}.json": b'{"n": %d}' % n * 200 for n in range(SMALL)})
        large = "/bench/large/resolve/main/model.safetensors"
        rows: dict[str, dict[str, float]] = {}
        for label, env in (("freehold", {}), ("freehold, verify", {"FREEHOLD_VAULT__READ_POLICY": "verify"})):
            argv = [sys.executable, "-m", "freehold", "--home", str(home), "up", "--port", "0"]
            with process(argv, lambda: listens(house_port(home) or 1), env) as pid:
                port = house_port(home) or 0
                rows[label] = measure(pid, port, large, size, asked.repeat)
                if not env:
                    rows["200 small files"] = measure_small(pid, port)
                    if asked.snapshot:
                        rows["200 small files"]["snapshot_download s"] = snapshot_seconds(port, folder / "hf")
        port = free_port()
        with process([sys.executable, "-c", _PLAIN, str(port), str(blob)], lambda: listens(port), {}) as pid:
            rows["plain FileResponse"] = measure(pid, port, "/x", size, asked.repeat)
        if shutil.which("nginx"):
            port = free_port()
            (folder / "nginx.conf").write_text(
                _NGINX.format(folder=folder, port=port, user="user root; " if os.getuid() == 0 else "")
            )
            with process(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], lambda: listens(port), {}) as pid:
                rows["nginx"] = measure(pid, port, "/blob", size, asked.repeat)
    for label, row in rows.items():
        print(f"{label:22}", "  ".join(f"{name} {value}" for name, value in row.items()))
    print("whole and ranged are CPU-seconds of the server per GiB, medians")


if __name__ == "__main__":
    main()
