"""pip, asked as the user would ask it: with his indexes, certificates, proxies and keys, and never one of ours.

Why a child process and not a client of our own: the user's configuration of pip is the contract, and only pip reads all of it.
First it is asked for its report (which file it would take, and the SHA-256 that the index announces), then at most once for
the file itself; what pip fetched for its report is kept by `pip_child`. Source archives are never taken: they run code.

Works with pip 22.2 and later (the first with `--report`). It does not look into wheels.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freehold.errors import FreeholdError
from freehold.net.urls import redact
from freehold.nouns.progress import Listener, Progress
from freehold.procs.child import Finished, run

_CHILD = Path(__file__).with_name("pip_child.py")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSIONS = re.compile(r"Available versions: *(\S[^\n]*)")
_RAW = re.compile(r"Progress (\d+) of (\d+)")
#: Not pip's business.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "FREEHOLD_KEY")
_AWAY = re.compile(
    r"connection broken|Failed to establish a new connection|Max retries exceeded|Name or service not known|ProxyError|"
    r"Temporary failure in name resolution|ReadTimeoutError|ConnectTimeoutError|Connection refused|"
    r"ConnectionResetError|IncompleteRead|ConnectionError|NetworkConnectionError|connection error|HTTP error 5\d\d|"
    r"5\d\d Server Error|SSLError|Could not connect|timed out|not enough bytes were received|incomplete-download",
    re.IGNORECASE,
)
_REFUSED = re.compile(r"HTTP error 40[13]|40[13] Client Error|401 Error")


@dataclass(frozen=True, slots=True)
class Report:
    """What pip would take: its file name, URL (without login), the SHA-256 that the index announces, the core metadata."""

    filename: str
    url: str
    sha256: str
    metadata: dict[str, Any]


@dataclass(slots=True)
class _Seen:
    """What pip's lines told while it ran."""

    total: int | None = None
    source_archives: list[str] = field(default_factory=list)
    network: str = ""
    lines: list[str] = field(default_factory=list)


def pip_version() -> tuple[int, ...]:
    """The version of the pip beside this interpreter; FreeholdError keep-pip-missing."""
    try:
        text = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise FreeholdError("keep-pip-missing", f"this Python ({sys.executable}) has no pip", python=sys.executable) from error
    return tuple(int(n) for n in re.findall(r"\d+", text)[:3])


def newest_version(package: str, folder: Path) -> str | None:
    """The version that the index offers as newest wheel; None if this pip cannot say."""
    pip_version()
    done, seen = _pip(["index", "versions", "--only-binary", ":all:", package], folder, lambda _: None)
    match = _VERSIONS.search("\n".join(seen.lines))
    return match[1].split(",")[0].strip() if done.exit.ok and match else None


def ask_report(requirement: str, folder: Path, listener: Listener) -> Report:
    """Which wheel pip would take for `requirement`. If pip fetched it for that, it lies in `folder` afterwards.

    FreeholdError keep-package-not-found, keep-only-source, keep-index-unreachable, keep-index-refused, keep-hash-mismatch,
    keep-pip-failed, vault-disk-full."""
    answer = folder / "report.json.new"
    arguments = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--report", str(answer), *_only_wheels()]
    done, seen = _pip([*arguments, requirement], folder, listener)
    if not done.exit.ok:
        raise _failure(requirement, done, seen)
    try:
        item = json.loads(answer.read_text("utf-8"))["install"][0]
        info = item["download_info"]
        archive = info["archive_info"]
        legacy = str(archive.get("hash", "")).partition("sha256=")[2]
        report = Report(
            _filename(info["url"]), redact(info["url"]), archive.get("hashes", {}).get("sha256") or legacy, item["metadata"]
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise FreeholdError("keep-pip-failed", f"pip gave no report that can be read: {error!r}") from error
    finally:
        answer.unlink(missing_ok=True)
    if not _SHA256.fullmatch(report.sha256):
        raise FreeholdError("keep-index-no-hash", f"the index announces no SHA-256 for {report.filename}", file=report.filename)
    return report


def download(report: Report, requirement: str, folder: Path, listener: Listener) -> Path:
    """Let pip put exactly the reported wheel into `folder`. Errors as `ask_report`."""
    done, seen = _pip(["download", "--no-deps", "--dest", str(folder), *_only_wheels(), requirement], folder, listener)
    if not done.exit.ok:
        raise _failure(requirement, done, seen)
    wheel = folder / report.filename
    if not wheel.is_file():
        raise FreeholdError("keep-pip-failed", f"pip ended well but did not bring {report.filename}", file=report.filename)
    return wheel


def _only_wheels() -> list[str]:
    bar = ["--progress-bar", "raw"] if pip_version() >= (24, 1) else []
    return ["--only-binary", ":all:", *bar]


def _filename(url: str) -> str:
    name = url.partition("#")[0].rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!%-]*\.whl", name):
        raise FreeholdError("keep-only-source", f"pip would take {name!r}, which is no wheel", file=name)
    return name.replace("%2B", "+").replace("%21", "!")


def _pip(arguments: Sequence[str], folder: Path, listener: Listener) -> tuple[Finished, _Seen]:
    """Run pip with a temporary folder of its own below `folder`, where the growing wheel is watched."""
    seen = _Seen()
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in _SECRETS}
    environment |= {"TMPDIR": str(scratch), "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    plain = ["--disable-pip-version-check", "--no-input", "--no-color", "-vv"]
    command = [sys.executable, "-P", str(_CHILD), str(folder), *plain, *arguments]
    try:
        with _watched(scratch, folder, seen, listener):
            done = run(command, env=environment, on_line=lambda line: _note(seen, line))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for line in done.tail.splitlines():
        _note(seen, line)
    return done, seen


def _note(seen: _Seen, line: str) -> None:
    if match := _RAW.match(line):
        seen.total = int(match[2])
        return
    if "No sources permitted" in line:
        seen.source_archives.append(line.partition("#")[0].partition(" (from ")[0].rpartition("/")[2])
    if _AWAY.search(line) and "Skipping link" not in line:
        seen.network = line.strip()
    seen.lines.append(line)
    del seen.lines[:-2000]


@contextmanager
def _watched(scratch: Path, folder: Path, seen: _Seen, listener: Listener) -> Iterator[None]:
    """Tell the listener how the wheel grows; pip's own bar is for terminals, and older ones have no other."""
    ended = threading.Event()

    def watch() -> None:
        last = -1
        while not ended.wait(0.2):
            grown = _largest(scratch, folder)
            if grown > last and grown:
                last = grown
                listener(Progress("download", grown, seen.total))

    thread = threading.Thread(target=watch, name="freehold-pip-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _largest(scratch: Path, folder: Path) -> int:
    """Bytes of the largest wheel there is just now; pip makes and removes folders while this looks."""
    try:
        return max((p.stat().st_size for p in (*scratch.glob("pip-*/*.whl"), *folder.glob("*.whl"))), default=0)
    except OSError:
        return 0


def _failure(requirement: str, done: Finished, seen: _Seen) -> FreeholdError:
    """What pip's words mean. They are no interface: what is not recognised is passed on as pip said it."""
    said = "\n".join([*seen.lines, done.tail])
    errors = [line.strip() for line in done.tail.splitlines() if line.strip().startswith("ERROR:")]
    last = (errors or [line.strip() for line in done.tail.splitlines() if line.strip()] or [str(done.exit)])[-1][:300]
    if "No space left on device" in said or "Errno 28" in said:
        return FreeholdError("vault-disk-full", f"pip found no room for {requirement}")
    if "DO NOT MATCH THE HASHES" in said:
        return FreeholdError("keep-hash-mismatch", f"{requirement} is not the file that the index announced")
    if _REFUSED.search(said):
        return FreeholdError("keep-index-refused", f"the index refused pip: {last}", requirement=requirement)
    if seen.network:
        message = f"pip cannot reach the index: {seen.network[:300]}"
        return FreeholdError("keep-index-unreachable", message, requirement=requirement)
    if "No matching distribution" in said or "Could not find a version" in said:
        return _absent(requirement, said, seen)
    return FreeholdError("keep-pip-failed", f"pip failed ({done.exit}): {last}", requirement=requirement)


def _absent(requirement: str, said: str, seen: _Seen) -> FreeholdError:
    """The index was reached and has no such wheel; perhaps a source archive, perhaps other versions."""
    version = requirement.partition("==")[2]
    archives = [n for n in seen.source_archives if not version or re.search(rf"-{re.escape(version)}\.(tar|zip|tgz)", n)]
    if archives:
        message = f"the index has no wheel of {requirement}, only the source archive {archives[-1]}"
        return FreeholdError("keep-only-source", message, requirement=requirement)
    offered = re.search(r"from versions: ([^)]+)\)", said)
    others = f"; it offers {offered[1]}" if offered and offered[1] != "none" else ""
    message = f"the index has no {requirement}{others[:300]}"
    return FreeholdError("keep-package-not-found", message, requirement=requirement)
