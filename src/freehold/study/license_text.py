"""Which license a text is, told by fingerprints: the texts themselves are their authors' and are not shipped.

A text becomes a row of plain words: case, punctuation, line breaks, list numbers and short copyright lines do not count. A
fingerprint holds the number and the SHA-256 of those words, which proves the text letter for letter, and a sample of the
hashes of its five-word sequences, which tells how near a text is that is not the same. Three answers follow:

- `exact`: the words of a known text, and around it nothing but titles and other known texts;
- `contains`: the words of a known text without a change, but other words besides (`surplus` of them);
- `similar`: most of a known text, changed; the score says how near, and it never reaches 1.

A copyright line with words of permission or prohibition in it is kept, since a term can hide there. This is evidence for
a reader who reviews, never legal advice: what a changed text means is not judged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

#: Version of these rules: a finding says by which it was made.
METHOD = "license-1"
#: Texts beyond this many bytes are not compared.
MAX_TEXT = 512 * 1024

Match = Literal["exact", "contains", "similar"]

_RUN = 5  # words in a sequence
_SAMPLE = 128  # sequences kept of a text, at least, if it has them
_LIKE = 0.7  # share of a known text that must be there to name it
_REMAINDER = 50  # words besides known texts that are worth a comparison of their own
_WORD = re.compile(r"[^\W_一-鿿]+|[一-鿿]")
_LIST_NUMBER = re.compile(r"^[ \t]*(?:\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]|[*•-])[ \t]+", re.MULTILINE)
_COPYRIGHT = re.compile(r"\W*(?:portions )?(?:copyright\b|©|\(c\))|\W*all rights reserved\W*$")
_DATED = re.compile(r"\b(?:19|20)\d\d\b|\(c\)|©|[\[<]y|all rights reserved")
# Words of a term: a line that holds one is more than a copyright notice.
_TERM_WORDS = frozenset(
    [
        "allowed",
        "commercial",
        "commercially",
        "condition",
        "conditions",
        "distribute",
        "except",
        "forbidden",
        "free",
        "granted",
        "grant",
        "harm",
        "license",
        "licensed",
        "may",
        "military",
        "modify",
        "must",
        "no",
        "non",
        "noncommercial",
        "not",
        "only",
        "permission",
        "permitted",
        "prohibited",
        "provided",
        "redistribute",
        "research",
        "restricted",
        "sell",
        "shall",
        "subject",
        "terms",
        "unless",
        "use",
        "used",
        "uses",
        "using",
        "without",
    ]
)
_TITLE_WORDS = frozenset(["the", "a", "license", "licence", "version", "v", "all", "rights", "reserved", "copyright", "c"])
# Wordings that publishers of one license vary without another meaning.
_FSF_ADDRESS = r"\b(?:51 franklin st(?:reet)? (?:suite 500|fifth floor)|59 temple place (?:suite 330 )?)[ a-z0-9]{0,40}?\busa\b"
_VARIED = (
    (re.compile(_FSF_ADDRESS), ""),
    (re.compile(r"\bhttps? (?:www )?fsf org\b"), ""),
    (re.compile(r"\bcopyright (?:holders|owners?)\b"), "copyright holder"),
    (re.compile(r"\bhttps\b"), "http"),
    (re.compile(r"\blicence"), "license"),
)
_BSD_NAME = re.compile(r"\bneither the names? of ((?:\w+ ){1,12}?)nor the names of (?:its |the )?contributors\b")


@dataclass(frozen=True, slots=True)
class KnownLicense:
    """`spdx` is the SPDX identifier if there is one; `policy`: a use policy, no license by itself."""

    key: str
    name: str
    spdx: str | None = None
    policy: bool = False


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A known text found in another. `score` in 0..1: 1 only for `exact`; `surplus` counts words besides all known texts."""

    license: KnownLicense
    match: Match
    score: float
    surplus: int = 0


@dataclass(frozen=True, slots=True)
class _Whole:
    words: int
    sha256: str
    anchor: int


@dataclass(frozen=True, slots=True)
class _Fingerprint:
    license: KnownLicense
    title: frozenset[str]
    wholes: tuple[_Whole, ...]
    modulus: int
    sample: frozenset[int]


def words_of(text: str) -> list[str]:
    """The words that count, in order."""
    text = unicodedata.normalize("NFKC", text).lower()
    lines = (line for line in text.splitlines() if not _is_copyright(line))
    joined = " ".join(_WORD.findall(_LIST_NUMBER.sub("", "\n".join(lines))))
    for pattern, plain in _VARIED:
        joined = pattern.sub(plain, joined)
    return _BSD_NAME.sub(_bsd_name, joined).split()


def identify(text: str) -> list[TextMatch]:
    """The known licenses in `text`, in the order in which they stand; empty if none is near."""
    words = words_of(text)
    runs = _runs(words)
    spans = _whole_spans(words, runs)
    taken = [False] * len(words)
    for start, stop, _ in spans:
        taken[start:stop] = [True] * (stop - start)
    rest = [w for w, t in zip(words, taken, strict=True) if not t]
    titles = _TITLE_WORDS.union(*(f.title for *_, f in spans))
    surplus = sum(w not in titles for w in rest)
    found: dict[str, TextMatch] = {}
    for start, stop, fingerprint in spans:
        exact = not surplus
        score = 1.0 if exact else min(0.999, (stop - start) / (stop - start + len(rest)))
        match = TextMatch(fingerprint.license, "exact" if exact else "contains", round(score, 3), surplus)
        found.setdefault(fingerprint.license.key, match)
    if not spans or surplus >= _REMAINDER:
        near = _nearest({r for n, r in enumerate(runs) if not taken[n]})
        if near is not None:
            found.setdefault(near.license.key, near)
    return list(found.values())


def find_license(name: str) -> KnownLicense | None:
    """The license that a tag or name means, None if the table does not know it: `apache-2.0`, `MIT License`, `llama3.2`."""
    return _names().get(_plain(name.rpartition("::")[2]))


def fingerprint(texts: Iterable[str]) -> dict[str, Any]:
    """What is shipped of a license, from all texts of it that are known: JSON values. For scripts/license_fingerprints.py."""
    wholes: dict[str, dict[str, Any]] = {}
    runs: set[int] = set()
    for text in texts:
        words = words_of(text)
        for part in _parts(words):
            wholes.setdefault(_sha256(part), {"words": len(part), "sha256": _sha256(part), "anchor": _runs(part[:_RUN])[0]})
        runs.update(_runs(words))
    modulus = 1
    while len(runs) // (modulus * 2) >= _SAMPLE:
        modulus *= 2
    sample = b"".join(r.to_bytes(4, "little") for r in sorted(r for r in runs if r % modulus == 0))
    return {"wholes": list(wholes.values()), "modulus": modulus, "sample": base64.b64encode(sample).decode()}


def license_names() -> dict[str, dict[str, Any]]:
    """The table of known licenses: key to name, spdx, aliases, files, policy."""
    return tomllib.loads((resources.files("freehold") / "data" / "licenses" / "names.toml").read_text("utf-8"))


def _parts(words: list[str]) -> list[list[str]]:
    """The whole, and the terms alone where instructions for their use follow."""
    joined = " ".join(words)
    end = joined.find("end of terms and conditions")
    return [words] if end < 0 else [words, [*joined[:end].split(), "end", "of", "terms", "and", "conditions"]]


def _is_copyright(line: str) -> bool:
    """Names a year and a holder, and nothing that could be a term."""
    if not _COPYRIGHT.match(line) or not _DATED.search(line):
        return False
    words = _WORD.findall(line)
    return len(words) <= 14 and _TERM_WORDS.isdisjoint(words)


def _bsd_name(match: re.Match[str]) -> str:
    if not _TERM_WORDS.isdisjoint(match[1].split()):
        return match[0]
    return "neither the name of the copyright holder nor the names of its contributors"


def _runs(words: Sequence[str]) -> list[int]:
    """A 32-bit hash of each five words in a row."""
    return [
        int.from_bytes(hashlib.blake2b(" ".join(words[n : n + _RUN]).encode(), digest_size=4).digest(), "little")
        for n in range(max(len(words) - _RUN + 1, 0))
    ]


def _sha256(words: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:32]


def _whole_spans(words: list[str], runs: list[int]) -> list[tuple[int, int, _Fingerprint]]:
    """Where known texts stand unchanged; of two that overlap the longer one."""
    anchors: dict[int, list[tuple[_Whole, _Fingerprint]]] = {}
    for known in _fingerprints():
        for whole in known.wholes:
            anchors.setdefault(whole.anchor, []).append((whole, known))
    spans = [
        (n, n + whole.words, known)
        for n, run in enumerate(runs)
        for whole, known in anchors.get(run, ())
        if n + whole.words <= len(words) and _sha256(words[n : n + whole.words]) == whole.sha256
    ]
    kept: list[tuple[int, int, _Fingerprint]] = []
    for span in sorted(spans, key=lambda s: (s[0] - s[1], s[0])):
        if all(span[1] <= start or stop <= span[0] for start, stop, _ in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s[0])


def _nearest(runs: set[int]) -> TextMatch | None:
    best: TextMatch | None = None
    for known in _fingerprints():
        sample = {r for r in runs if r % known.modulus == 0}
        common = len(sample & known.sample)
        if common < _LIKE * len(known.sample):
            continue
        score = round(min(0.999, common / len(sample | known.sample)), 3)
        if best is None or score > best.score:
            best = TextMatch(known.license, "similar", score)
    return best


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


@cache
def _names() -> dict[str, KnownLicense]:
    found: dict[str, KnownLicense] = {}
    for key, row in license_names().items():
        known = _known(key, row)
        for name in (known.key, known.name, known.spdx or "", *row.get("aliases", ())):
            if _plain(name) and found.setdefault(_plain(name), known) != known:
                raise AssertionError(f"two licenses are called {name!r}")
    return found


@cache
def _fingerprints() -> tuple[_Fingerprint, ...]:
    shipped = json.loads((resources.files("freehold") / "data" / "licenses" / "fingerprints.json").read_text("utf-8"))
    if shipped["method"] != METHOD:
        raise AssertionError(f"fingerprints by {shipped['method']}, rules by {METHOD}: run scripts/license_fingerprints.py")
    names = license_names()
    found = []
    for row in shipped["licenses"]:
        known = _known(row["key"], names[row["key"]])
        sample = base64.b64decode(row["sample"])
        found.append(
            _Fingerprint(
                known,
                frozenset(_WORD.findall(f"{known.name} {known.spdx or ''} {known.key}".lower())),
                tuple(_Whole(w["words"], w["sha256"], w["anchor"]) for w in row["wholes"]),
                row["modulus"],
                frozenset(int.from_bytes(sample[n : n + 4], "little") for n in range(0, len(sample), 4)),
            )
        )
    return tuple(found)


def _known(key: str, row: dict[str, Any]) -> KnownLicense:
    return KnownLicense(key, row["name"], row.get("spdx"), row.get("policy", False))
