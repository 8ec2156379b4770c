"""Doctor: what this machine and this home can do, and what a person should mend."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

from freehold.catalog import events, repos, revisions
from freehold.db.home import running_server
from freehold.errors import FreeholdError
from freehold.flows.parts import Parts
from freehold.nouns.caller import Caller, Scope
from freehold.nouns.digest import Digest
from freehold.procs.cpus import usable_cores

OK, WARN, BAD = "ok", "warn", "bad"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line: `state` is ok, warn or bad; `hint` says what to do where it is not ok."""

    name: str
    state: str
    detail: str
    hint: str = ""


def examine(parts: Parts, caller: Caller) -> list[Diagnosis]:
    """Look at the machine and the home; changes nothing and asks nothing of the network."""
    caller.require(Scope.ADMIN)
    return [
        Diagnosis("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Diagnosis("sqlite", OK if sqlite3.sqlite_version_info >= (3, 37) else BAD, sqlite3.sqlite_version),
        _cores(),
        _pip(),
        _engine(),
        _disk(parts.home.path),
        _chain(parts),
        _vault(parts),
        _named(parts),
        _spool(parts.home.spool),
        _server(parts),
    ]


def _cores() -> Diagnosis:
    usable, present = usable_cores(), os.cpu_count() or 1
    return Diagnosis("cores", OK, f"{usable} usable of {present}")


def _pip() -> Diagnosis:
    try:
        return Diagnosis("pip", OK, f"{importlib.metadata.version('pip')} (for `freehold pull pypi:` and the stock clients)")
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis("pip", WARN, "not installed beside freehold", f"{sys.executable} -m ensurepip")


def _engine() -> Diagnosis:
    try:
        return Diagnosis("engine", OK, f"xllamacpp {importlib.metadata.version('xllamacpp')}")
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(
            "engine", WARN, "no local engine: models are kept and served, but not run", "pip install 'freehold[llama]'"
        )


def _disk(path: Path) -> Diagnosis:
    usage = shutil.disk_usage(path)
    free = usage.free / 1e9
    state = OK if free > 5 else WARN if free > 0.5 else BAD
    return Diagnosis("disk", state, f"{free:.1f} GB free at {path}", "" if state == OK else "Free space, or move the home.")


def _chain(parts: Parts) -> Diagnosis:
    try:
        with parts.catalog.read() as tx:
            return Diagnosis("events", OK, f"{events.verify_chain(tx)} rows, the hash chain holds")
    except FreeholdError as error:
        return Diagnosis("events", BAD, error.message, error.hint)


def _vault(parts: Parts) -> Diagnosis:
    stats = parts.vault.stats()
    detail = f"{stats.files} files, {stats.plain_bytes / 1e6:.1f} MB; {stats.quarantined} damaged"
    if stats.quarantined:
        return Diagnosis("vault", BAD, detail, "`freehold verify` names them.")
    return Diagnosis("vault", OK, detail)


def _named(parts: Parts) -> Diagnosis:
    """Whether catalog and vault belong together: each may have been lost or restored without the other."""
    named: set[Digest] = set()
    with parts.catalog.read() as tx:
        models = repos.list_repos(tx)
        for repo in models:
            for revision in revisions.list_revisions(tx, repo):
                named |= {e.sha256 for e in revisions.get_manifest(tx, revision)}
                if revision.manifest_digest:
                    named.add(revision.manifest_digest)
    held = set(parts.vault.digests())
    lost, nameless = len(named - held), len(held - named)
    detail = f"{len(models)} models" + (f"; {nameless} files in the vault that no model names" if nameless else "")
    if lost:
        hint = "`freehold verify --rebuild-index` finds what lies on disk; pull the models again for the rest."
        return Diagnosis("catalog", BAD, f"{detail}; {lost} files that are not in the vault", hint)
    if nameless and not models:
        hint = "If catalog.db was lost or replaced, restore it from a backup: the files are still here."
        return Diagnosis("catalog", WARN, detail, hint)
    return Diagnosis("catalog", OK, detail)


def _spool(folder: Path) -> Diagnosis:
    pending = [p for p in folder.iterdir() if p.is_file() and p.suffix == ".part"]
    size = sum(p.stat().st_size for p in pending)
    count = f"{len(pending)} unfinished download{'s' if len(pending) > 1 else ''}"
    detail = f"{count}, {size / 1e6:.1f} MB" if pending else "nothing unfinished"
    return Diagnosis("spool", OK, detail, "Pull again to go on where they stopped." if pending else "")


def _server(parts: Parts) -> Diagnosis:
    url = running_server(parts.home)
    return Diagnosis("server", OK, f"runs at {url}" if url else "not running (`freehold up` starts it)")
