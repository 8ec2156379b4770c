"""A license text is named exact only if it is the text, whatever its layout; a changed one never is."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.study.license_text import find_license, fingerprint, identify, license_names, words_of

ROOT = Path(__file__).parents[2]
APACHE = (ROOT / "LICENSE").read_text("utf-8")
TEXTS = os.environ.get("FREEHOLD_TEST_DATA")
needs_texts = pytest.mark.skipif(not TEXTS, reason="not run, since FREEHOLD_TEST_DATA names no folder of license texts")


def named(text: str) -> list[tuple[str, str]]:
    return [(m.license.key, m.match) for m in identify(text)]


def test_the_text_is_named_whatever_its_layout() -> None:
    for text in (
        APACHE,
        APACHE.upper(),
        APACHE.replace("\n", "\r\n"),
        re.sub(r"(?<=\S)\n +(?=\S)", " ", APACHE),
        APACHE.replace('"', "”"),
        f"# {APACHE}",
    ):
        assert named(text) == [("apache-2.0", "exact")]
    terms = APACHE[: APACHE.index("END OF TERMS AND CONDITIONS") + 30]
    assert named(terms) == [("apache-2.0", "exact")]
    filled = APACHE.replace("Copyright [yyyy] [name of copyright owner]", "Copyright 2024, 2025 Ann & Co. (ann@example.org)")
    assert named(filled) == [("apache-2.0", "exact")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("worldwide, non-exclusive, no-charge", "worldwide, non-exclusive, non-commercial, no-charge"),
        ("irrevocable", "revocable"),
        ("You must give any other recipients", "You must not give any other recipients"),
        ("(50%)", "(10%)"),
        ("Grant of Patent License", "No Grant of Patent License"),
    ],
)
def test_a_changed_clause_is_never_an_exact_match(old: str, new: str) -> None:
    assert old in APACHE
    (match,) = identify(APACHE.replace(old, new))
    assert (match.license.key, match.match) == ("apache-2.0", "similar")
    assert 0.9 < match.score < 1


@pytest.mark.parametrize(
    "added",
    [
        "Commercial use is forbidden.",
        "Copyright 2024 Ann. Commercial use is prohibited.",
        "Copyright (c) Ann, for research use only",
    ],
)
def test_an_added_term_is_never_an_exact_match_not_even_in_a_copyright_line(added: str) -> None:
    for text in (f"{APACHE}\n{added}\n", f"{added}\n{APACHE}"):
        (match,) = identify(text)
        assert (match.license.key, match.match) == ("apache-2.0", "contains")
        assert match.surplus > 0
        assert match.score < 1
    assert named(f"Copyright 2024 Ann\n{APACHE}") == [("apache-2.0", "exact")]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, len(words_of(APACHE)) - 2), st.sampled_from(["drop", "double", "not"]))
def test_one_word_more_or_less_within_is_seen(at: int, how: str) -> None:
    words = words_of(APACHE)
    changed = [*words[:at], *{"drop": [], "double": [words[at]] * 2, "not": ["not", words[at]]}[how], *words[at + 1 :]]
    (match,) = identify(" ".join(changed))
    assert match.license.key == "apache-2.0"
    assert match.match != "exact" or changed == words
    assert match.score < 1


def test_other_text_is_no_license() -> None:
    for text in ("", "MIT", "All rights reserved.", "# A model\n\nTrained on things.\n" * 200, "See the LICENSE file."):
        assert identify(text) == []


@pytest.mark.parametrize(
    ("tag", "key"),
    [
        ("apache-2.0", "apache-2.0"), ("Apache License, Version 2.0", "apache-2.0"), ("MIT", "mit"), ("The MIT License", "mit"),
        ("License :: OSI Approved :: Apache Software License", "apache-2.0"), ("cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("llama3.2", "llama-3.2"), ("llama2", "llama-2"), ("gemma", "gemma"), ("openrail++", "openrail-plus-plus"),
        ("GPL-3.0-or-later", "gpl-3.0"), ("bsd-3-clause", "bsd-3-clause"),
    ],
)  # fmt: skip
def test_tags_and_names_mean_a_license(tag: str, key: str) -> None:
    found = find_license(tag)
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize("tag", ["", "other", "bsd", "gpl", "cc", "openrail", "my-license", "mit-0", "llama"])
def test_a_tag_that_means_several_or_none_means_none(tag: str) -> None:
    assert find_license(tag) is None


def test_the_shipped_data_hold_no_sentences() -> None:
    shipped = (ROOT / "src/freehold/data/licenses/fingerprints.json").read_text("utf-8")
    assert len(shipped) < 150_000
    made = fingerprint([APACHE])
    assert set(made) == {"wholes", "modulus", "sample"}
    assert "permission" not in shipped.lower()


@needs_texts
def test_every_known_text_is_named_as_itself_and_as_nothing_else() -> None:
    folder = Path(str(TEXTS)) / "licenses"
    for key, row in license_names().items():
        for name in row["files"]:
            assert named((folder / name).read_text("utf-8")) == [(key, "exact")], name


@needs_texts
def test_every_known_text_with_a_clause_cut_out_is_near_itself_but_never_exact() -> None:
    folder = Path(str(TEXTS)) / "licenses"
    wrong = []
    for key, row in license_names().items():
        text = (folder / row["files"][0]).read_text("utf-8")
        words = words_of(text)
        cut = identify(" ".join([*words[: len(words) // 2], *words[len(words) // 2 + max(3, len(words) // 100) :]]))
        assert all(m.match != "exact" for m in cut), key
        if not cut or cut[0].license.key != key:
            wrong.append(key)
    assert wrong == []


@needs_texts
def test_two_texts_in_one_file_are_both_named() -> None:
    folder = Path(str(TEXTS)) / "licenses"
    mit = "MIT License\n\nCopyright (c) 2024 Ann\n\n" + (folder / "mit.txt").read_text("utf-8")
    assert named(f"{mit}\n\n{APACHE}") == [("mit", "exact"), ("apache-2.0", "exact")]
    changed = mit.replace("without restriction", "without commercial purpose")
    assert named(f"{APACHE}\n\n{changed}") == [("apache-2.0", "contains"), ("mit", "similar")]


@needs_texts
def test_the_shipped_fingerprints_are_those_of_the_texts() -> None:
    spec = spec_from_file_location("license_fingerprints", ROOT / "scripts" / "license_fingerprints.py")
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    sys.modules.setdefault("license_fingerprints", script)
    spec.loader.exec_module(script)
    assert script.main([str(Path(str(TEXTS)) / "licenses"), "--check"]) == 0
