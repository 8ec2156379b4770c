"""What a reader of a revision should know before using it: a narrow list, each entry a fact with its place.

Kinds: `structure-error` (weights that break their format's rules, shards that do not fit), `unread-weights` (a version or type
that this release does not know), `misnamed-file` (claims a format that it is not), `lfs-pointer` (the text that stands for a
file, without the file), `pickle-file` (runs code when it is loaded in the usual way), `remote-code` (Python that a loader is
told to run, or that lies beside the weights), `trailing-bytes` (bytes in or after the weights that belong to no tensor),
`license-missing`, `license-conflict`, `license-text-changed`, `unreadable-declaration` (a card or configuration of which
something could not be read).

It opens no pickle and runs nothing, so it cannot say that a file is harmless: no finding is not a clean bill.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from freehold.formats.gguf import GgufFile
from freehold.formats.sniff import PICKLES, FileKind
from freehold.nouns.origin import Finding, Severity
from freehold.study.license import LicenseView, view_license
from freehold.study.reading import Files, Reading, as_reading
from freehold.study.weights import Survey

#: Version of these rules.
METHOD = "files-1"

# Ends of error codes that speak of a newer or rarer format, not of damage.
_UNKNOWN = ("-unsupported", "-version", "-big-endian")
_PICKLE_NAMES = frozenset({".pkl", ".pickle", ".joblib", ".dill"})
_Found = tuple[str, Severity, dict[str, Any]]


def find(subject: str, files: Files, license_view: LicenseView | None = None) -> list[Finding]:
    """Findings about `subject` (`commit:<sha>` or a digest), by kind and place; `detail["message"]` is a sentence."""
    reading = as_reading(files)
    view = license_view or view_license(reading)
    raw = [*_structure(reading.survey), *_pickles(reading), *_code(reading), *_license(view), *_declarations(reading)]
    return [Finding(subject, kind, severity, METHOD, detail) for kind, severity, detail in raw]


def _structure(found: Survey) -> Iterator[_Found]:
    for weights in found.sets:
        for file in weights.files:
            if file.error is not None:
                detail = {"path": file.path, "code": file.error.code, "message": file.error.message}
                known = not file.error.code.endswith(_UNKNOWN)
                yield ("structure-error", Severity.CRITICAL, detail) if known else ("unread-weights", Severity.WARNING, detail)
            if isinstance(file.header, GgufFile) and (stray := file.header.trailing + file.header.gaps):
                message = f"{stray} bytes of {file.path} belong to no tensor"
                where = {"path": file.path, "trailing": file.header.trailing, "gaps": file.header.gaps, "message": message}
                yield "trailing-bytes", Severity.WARNING, where
        for fault in weights.faults:
            yield "structure-error", Severity.CRITICAL, {"path": weights.name, "message": f"{weights.name}: {fault}"}
    for path, message in found.faults.items():
        yield "structure-error", Severity.CRITICAL, {"path": path, "message": f"{path}: {message}"}
    for path in found.misnamed:
        if found.kinds.get(path) is not FileKind.LFS_POINTER:
            what = found.kinds.get(path) or "no format that is known"
            yield (
                "misnamed-file",
                Severity.CRITICAL,
                {"path": path, "kind": str(what), "message": f"{path} is {what} by its content"},
            )
    for path, kind in found.kinds.items():
        if kind is FileKind.LFS_POINTER:
            yield "lfs-pointer", Severity.WARNING, {"path": path, "message": f"{path} is an LFS pointer, not the file itself"}


def _pickles(reading: Reading) -> Iterator[_Found]:
    for path in sorted(reading.files):
        kind = reading.survey.kinds.get(path)
        if kind in PICKLES:
            message = f"{path} holds a pickle, which can run any code when it is loaded"
            yield "pickle-file", Severity.WARNING, {"path": path, "kind": str(kind), "by": "content", "message": message}
        elif kind is None and PurePosixPath(path).suffix.lower() in _PICKLE_NAMES:
            message = f"{path} is named as a pickle, which can run any code when it is loaded"
            yield "pickle-file", Severity.WARNING, {"path": path, "by": "name", "message": message}


def _code(reading: Reading) -> Iterator[_Found]:
    told: set[str] = set()
    for folder in sorted({"."} | {s.folder for s in reading.survey.sets}):
        for path, mapped in reading.beside(folder).auto_map.items():
            for name, target in mapped.items():
                for part in target.split(","):
                    elsewhere, _, local = part.rpartition("--")
                    module = local.rpartition(".")[0].replace(".", "/") + ".py"
                    told.add(module if folder == "." else f"{folder}/{module}")
                    message = f"{path} has {name} loaded from {part}: a loader told to trust it runs that code"
                    detail: dict[str, Any] = {
                        "path": path,
                        "class": name,
                        "target": part,
                        "elsewhere": elsewhere or None,
                        "message": message,
                    }
                    yield "remote-code", Severity.WARNING, detail
    for path in sorted(reading.files):
        if path.endswith((".py", ".pyc", ".pyw")):
            named = path in told
            message = f"{path} is code that a loader is told to run" if named else f"{path} is Python code beside the weights"
            detail = {"path": path, "named": named, "message": message}
            yield "remote-code", Severity.WARNING if named else Severity.NOTICE, detail


def _license(view: LicenseView) -> Iterator[_Found]:
    if not view.declarations and not view.found:
        yield "license-missing", Severity.NOTICE, {"message": "no license is declared and no license text is among the files"}
    if view.agreement == "conflict":
        yield "license-conflict", Severity.WARNING, {"message": view.reason}
    for text in view.found:
        if text.match in ("similar", "contains") and not text.policy:
            what = "is near it but changed" if text.match == "similar" else f"holds it and {text.surplus} words besides"
            message = f"{text.path}: the text is not the {text.name} as known; it {what}"
            detail = {"path": text.path, "key": text.key, "score": text.score, "surplus": text.surplus, "message": message}
            yield "license-text-changed", Severity.NOTICE, detail


def _declarations(reading: Reading) -> Iterator[_Found]:
    card = reading.card
    if card.problem:
        yield "unreadable-declaration", Severity.NOTICE, {"path": "README.md", "message": f"README.md: {card.problem}"}
    for name in ("license", "license_name", "base_model"):
        if name in card.unreadable:
            message = f"README.md: the field {name!r} could not be read: {card.unreadable[name]}"
            yield "unreadable-declaration", Severity.NOTICE, {"path": "README.md", "field": name, "message": message}
    for folder in sorted({s.folder for s in reading.survey.sets}):
        for path, message in reading.beside(folder).refused.items():
            yield "unreadable-declaration", Severity.NOTICE, {"path": path, "message": message}
