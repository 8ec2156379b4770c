"""What the gateway costs: requests a second, added latency, processor time and memory, against the echo engine alone.

    python benchmarks/use/gateway.py [--requests 2000] [--concurrent 16] [--tokens 40] [--priced]

Starts `freehold up` in a process of its own on a new home with the echo engine at full speed, and drives it from this one.
Prints for whole answers (a few tokens) and for streams (`--tokens` frames): requests a second, latency p50 and p99 at
`--concurrent` and at 1, processor seconds of the server per request, resident memory, and what the ledger counted. The added
latency is that of one request at a time over a bare `/healthz` of the same server, which reads the database and answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: int) -> float:
    line = next(row for row in Path(f"/proc/{pid}/status").read_text("ascii").splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def _drive(session: aiohttp.ClientSession, method: str, url: str, body: object, total: int, concurrent: int) -> list[float]:
    """Latencies in seconds of `total` requests, `concurrent` at a time."""
    times: list[float] = []
    left = iter(range(total))

    async def worker() -> None:
        for _ in left:
            began = time.perf_counter()
            async with session.request(method, url, json=body) as got:
                data = await got.read()
                assert got.status == 200, data[:300]
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(worker() for _ in range(concurrent)))
    return times


def _row(name: str, times: list[float], wall: float, cpu: float) -> dict[str, object]:
    ordered = sorted(times)
    return {
        "what": name,
        "requests": len(times),
        "per_second": round(len(times) / wall, 1),
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99) - 1] * 1000, 2),
        "server_cpu_ms_per_request": round(cpu / len(times) * 1000, 3),
    }


async def _measure(args: argparse.Namespace, url: str, key: str, pid: int) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    message = [{"role": "user", "content": "one two three"}]
    whole = {"model": "echo", "messages": message}
    stream = {"model": "echo", "messages": message, "max_tokens": args.tokens, "stream": True}
    chat = f"{url}/v1/chat/completions"
    plan = [
        ("healthz, 1 at a time", "GET", f"{url}/healthz", None, args.requests // 4, 1),
        ("whole, 1 at a time", "POST", chat, whole, args.requests // 4, 1),
        (f"whole, {args.concurrent} at a time", "POST", chat, whole, args.requests, args.concurrent),
        (f"stream of {args.tokens}, 1 at a time", "POST", chat, stream, args.requests // 8, 1),
        (f"stream of {args.tokens}, {args.concurrent} at a time", "POST", chat, stream, args.requests // 2, args.concurrent),
    ]
    print(f"memory at start {_rss(pid):.1f} MB", file=sys.stderr)
    medians: dict[str, float] = {}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await _drive(session, "POST", chat, whole, 50, 4)
        for name, method, target, body, total, concurrent in plan:
            began, cpu = time.perf_counter(), _cpu(pid)
            times = await _drive(session, method, target, body, total, concurrent)
            row = _row(name, times, time.perf_counter() - began, _cpu(pid) - cpu)
            medians[name] = float(str(row["p50_ms"]))
            print(json.dumps(row))
    added = medians["whole, 1 at a time"] - medians["healthz, 1 at a time"]
    print(json.dumps({"added_p50_ms": round(added, 2), "rss_mb": round(_rss(pid), 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrent", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--priced", action="store_true", help="Set prices, so that every request moves money.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
        env = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_")} | {"FREEHOLD_USE__ECHO": "true"}
        if args.priced:
            env |= {"FREEHOLD_USE__PROMPT_PRICE": "100000", "FREEHOLD_USE__GENERATED_PRICE": "400000"}
        base = [sys.executable, "-m", "freehold", "--home", folder]
        began = time.perf_counter()
        server = subprocess.Popen([*base, "up", "--port", "0", "--json"], env=env, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            ready = json.loads(next(line for line in server.stdout if line.startswith("{")))
            print(f"ready after {time.perf_counter() - began:.2f} s", file=sys.stderr)
            asyncio.run(_measure(args, ready["url"], ready["admin_key"], server.pid))
        finally:
            server.terminate()
            server.wait(30)
        subprocess.run([*base, "usage", "--check"], env=env, check=True)


if __name__ == "__main__":
    main()
