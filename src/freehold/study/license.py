"""The license of a revision: as declared, as found, and whether the two agree.

Declared: the card's tag, the weights' metadata, the package's metadata. Found: the texts of LICENSE, COPYING, NOTICE and use
policies, told by fingerprint. They agree only if every declaration means a known license whose text lies there unchanged
and with nothing added; whatever else there is says why it does not. Evidence for a reader who reviews, never legal advice.

It does not say what a license allows, and it does not look beyond the revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from email.parser import HeaderParser
from pathlib import PurePosixPath
from typing import Any, Literal

from freehold.formats.gguf import GgufFile
from freehold.formats.source import ByteSource
from freehold.study.license_text import MAX_TEXT, METHOD, KnownLicense, Match, find_license, identify
from freehold.study.reading import Files, Reading, as_reading

Agreement = Literal["agree", "conflict", "declared-only", "found-only", "unknown"]

_NOTICE = "Evidence for review, not legal advice."
_MAIN = re.compile(r"(?:.*[-_. ])?(?:un)?licen[sc]es?(?:[-_. ].*)?|(?:copying|terms)(?:[-_. ].*)?")
_BESIDES = re.compile(r"notice(?:[-_. ].*)?|.*use[-_ ]?policy.*")
_NO_TEXT = frozenset(
    [
        ".py",
        ".pyc",
        ".json",
        ".yaml",
        ".yml",
        ".toml",
        ".js",
        ".ts",
        ".c",
        ".h",
        ".png",
        ".jpg",
        ".pdf",
        ".gguf",
        ".safetensors",
        ".bin",
    ]
)
_PACKAGE = re.compile(r"(?:.*/)?[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO)|PKG-INFO")
_MAX_PACKAGE = 2**20
# Tags that name no license.
_EMPTY = frozenset({"other", "unknown", "none", "n/a", "see license", "proprietary"})


@dataclass(frozen=True, slots=True)
class Declaration:
    """`where`: card, a file's path, or what the caller said. `keys`: the licenses that `tag` means, empty if one is unknown."""

    where: str
    tag: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundLicense:
    """A license text in a file. `key` is None for a text that no known one is near; `score`, `match`, `surplus` as TextMatch."""

    path: str
    key: str | None
    name: str | None
    spdx: str | None
    score: float
    match: Match | None
    surplus: int = 0
    policy: bool = False


@dataclass(frozen=True, slots=True)
class LicenseView:
    """`declared` is the first declaration as written; `reason` says in a sentence why the agreement is what it is."""

    declared: str | None
    declarations: tuple[Declaration, ...]
    found: tuple[FoundLicense, ...]
    agreement: Agreement
    reason: str
    method: str = METHOD
    notice: str = _NOTICE

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def view_license(files: Files, stated: Mapping[str, str] | None = None) -> LicenseView:
    """`stated` adds declarations from elsewhere: where to tag, as `{"package metadata": "Apache-2.0"}`."""
    reading = as_reading(files)
    declarations = tuple(_declarations(reading, stated or {}))
    texts = tuple(_texts(reading.files))
    agreement, reason = _compare(declarations, texts)
    return LicenseView(declarations[0].tag if declarations else None, declarations, texts, agreement, reason)


def package_license(metadata: str) -> str | None:
    """What a package's core metadata declares: License-Expression, else License if short, else its license classifiers."""
    headers = HeaderParser().parsestr(metadata)
    expression, plain = headers.get("License-Expression", "").strip(), headers.get("License", "").strip()
    if expression:
        return expression
    if plain and plain.upper() != "UNKNOWN" and "\n" not in plain and len(plain) <= 100:
        return plain
    classifiers = [c for c in headers.get_all("Classifier", []) if c.startswith("License ::")]
    return " AND ".join(c.rpartition("::")[2].strip() for c in classifiers) or None


def _declarations(reading: Reading, stated: Mapping[str, str]) -> Iterable[Declaration]:
    card, files = reading.card, reading.files
    for tag in card.texts("license"):
        named = card.license_name if tag.lower() in _EMPTY else None
        yield _declaration("card", named or tag)
    for weights in reading.survey.sets:
        for file in weights.files:
            value = file.header.metadata.get("general.license") if isinstance(file.header, GgufFile) else None
            if isinstance(value, str) and value:
                yield _declaration(file.path, value)
    for path in sorted(files):
        if _PACKAGE.fullmatch(path):
            said = package_license(files[path].pread(0, _MAX_PACKAGE).decode("utf-8", "replace"))
            if said:
                yield _declaration(path, said)
    for where, tag in stated.items():
        if tag:
            yield _declaration(where, tag)


def _declaration(where: str, tag: str) -> Declaration:
    whole = find_license(tag)
    parts = [whole] if whole else [find_license(p) for p in re.split(r"\s+(?:OR|AND)\s+|[()]", tag) if p.strip()]
    known = [p.key for p in parts if p is not None]
    return Declaration(where, tag, tuple(known) if len(known) == len(parts) else ())


def _texts(files: Mapping[str, ByteSource]) -> Iterable[FoundLicense]:
    for path in sorted(files, key=lambda p: (len(PurePosixPath(p).parts), p)):
        if not _is_text(path):
            continue
        source = files[path]
        matches = identify(source.pread(0, MAX_TEXT).decode("utf-8-sig", "replace")) if source.size <= MAX_TEXT else []
        for m in matches:
            known: KnownLicense = m.license
            yield FoundLicense(path, known.key, known.name, known.spdx, m.score, m.match, m.surplus, known.policy)
        if not matches:
            yield FoundLicense(path, None, None, None, 0.0, None)


def _is_text(path: str) -> bool:
    pure = PurePosixPath(path.lower())
    in_folder = pure.parent.name in ("licenses", "licences")
    return bool(in_folder or _MAIN.fullmatch(pure.name) or _BESIDES.fullmatch(pure.name)) and pure.suffix not in _NO_TEXT


def _main_texts(found: tuple[FoundLicense, ...]) -> tuple[FoundLicense, ...]:
    """Texts that speak for the model: no notices of others' work, no use policies."""
    return tuple(f for f in found if not f.policy and _MAIN.fullmatch(PurePosixPath(f.path.lower()).name))


def _compare(declarations: tuple[Declaration, ...], found: tuple[FoundLicense, ...]) -> tuple[Agreement, str]:
    texts = _main_texts(found)
    first = declarations[0] if declarations else None
    for other in declarations[1:]:
        if first and first.keys and other.keys and not set(first.keys) & set(other.keys):
            return "conflict", f"{first.where} declares {first.tag!r}, {other.where} {other.tag!r}"
    if first is None:
        return (
            ("found-only", "no file declares a license") if texts else ("unknown", "no license is declared and no text is there")
        )
    if not texts:
        return "declared-only", "no license text is among the files"
    held = {f.key for f in texts if f.match in ("exact", "contains")}
    near = {f.key for f in texts if f.match == "similar" and f.score >= 0.9}
    for declared in declarations:
        if not declared.keys:
            return "unknown", f"{declared.tag!r}, declared by {declared.where}, is no license that is known"
        if (held or near) and not set(declared.keys) & (held | near):
            return "conflict", f"{declared.where} declares {declared.tag!r}; {texts[0].path} holds {_named(texts)}"
    whole = {f.key for f in texts if f.match == "exact"}
    doubtful = next((f for f in texts if f.match != "exact"), None)
    if doubtful is not None or not all(set(d.keys) & whole for d in declarations):
        return "unknown", _doubt(doubtful) if doubtful else "a declared license has no text"
    return "agree", "the text of every declared license is there, unchanged"


def _named(texts: tuple[FoundLicense, ...]) -> str:
    return " and ".join(dict.fromkeys(f.name for f in texts if f.name))


def _doubt(found: FoundLicense) -> str:
    if found.match == "contains":
        return f"{found.path} holds the {found.name} and {found.surplus} words besides"
    if found.match == "similar":
        return f"{found.path} is near the {found.name} but not the same"
    return f"{found.path} holds no license text that is known"
