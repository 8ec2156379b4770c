"""Declared and found: they agree only if the text of what is declared lies there unchanged."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from freehold.formats.gguf import write_gguf
from freehold.formats.source import ByteSource, BytesSource
from freehold.study.license import package_license, view_license

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")


def text(value: str) -> ByteSource:
    return BytesSource(value.encode())


def card(license_: str) -> ByteSource:
    return text(f"---\nlicense: {license_}\n---\n")


def gguf(license_: str) -> ByteSource:
    out = io.BytesIO()
    write_gguf(out, {"general.license": license_}, [])
    return BytesSource(out.getvalue())


FULL, CHANGED = text(APACHE), text(APACHE.replace("irrevocable", "revocable"))


@pytest.mark.parametrize(
    ("files", "agreement", "reason"),
    [
        ({}, "unknown", "no license is declared"),
        ({"LICENSE": FULL}, "found-only", "no file declares"),
        ({"README.md": card("mit")}, "declared-only", "no license text"),
        ({"README.md": card("apache-2.0"), "LICENSE": FULL}, "agree", "unchanged"),
        ({"m.gguf": gguf("Apache-2.0"), "x.dist-info/licenses/LICENSE": FULL}, "agree", "unchanged"),
        ({"README.md": card("mit"), "LICENSE": FULL}, "conflict", "card declares 'mit'; LICENSE holds Apache License 2.0"),
        ({"README.md": card("mit"), "m.gguf": gguf("apache-2.0")}, "conflict", "m.gguf 'apache-2.0'"),
        ({"README.md": card("mit"), "LICENSE": CHANGED}, "conflict", "Apache"),
        ({"README.md": card("apache-2.0"), "LICENSE": CHANGED}, "unknown", "not the same"),
        ({"README.md": card("apache-2.0"), "LICENSE": text(APACHE + "\nNo military use.\n")}, "unknown", "3 words besides"),
        ({"README.md": card("apache-2.0"), "LICENSE": text("Do as you like.")}, "unknown", "no license text that is known"),
        ({"README.md": card("our-own-1.0"), "LICENSE": FULL}, "unknown", "is no license that is known"),
        ({"README.md": card("MIT OR Apache-2.0"), "LICENSE": FULL}, "agree", "unchanged"),
        ({"README.md": card("mit"), "NOTICE": FULL}, "declared-only", "no license text"),
        ({"README.md": card("apache-2.0"), "LICENSE": FULL, "USE_POLICY.md": text("Be kind.")}, "agree", "unchanged"),
        ({"README.md": card("mit"), "license.py": FULL, "my_licenses.json": FULL}, "declared-only", "no license text"),
    ],
)  # fmt: skip
def test_agreement_and_its_reason(files: dict[str, ByteSource], agreement: str, reason: str) -> None:
    view = view_license(files)
    assert view.agreement == agreement
    assert reason in view.reason
    assert "not legal advice" in view.notice


def test_an_unnamed_license_is_looked_up_under_its_name() -> None:
    view = view_license({"README.md": text("---\nlicense: other\nlicense_name: llama3.2\n---\n")})
    assert view.declared == "llama3.2"
    assert view.declarations[0].keys == ("llama-3.2",)


def test_every_declaration_is_kept_with_its_place() -> None:
    metadata = text("Metadata-Version: 2.1\nName: x\nLicense: Apache-2.0\n\nbody")
    files = {"README.md": card("apache-2.0"), "m.gguf": gguf("apache-2.0"), "x-1.dist-info/METADATA": metadata, "LICENSE": FULL}
    view = view_license(files, {"package index": "Apache Software License"})
    assert [d.where for d in view.declarations] == ["card", "m.gguf", "x-1.dist-info/METADATA", "package index"]
    assert view.agreement == "agree"
    plain = view.as_dict()
    assert plain["declared"] == "apache-2.0"
    (found,) = plain["found"]
    assert (found["path"], found["key"], found["spdx"], found["score"], found["match"]) == (
        "LICENSE",
        "apache-2.0",
        "Apache-2.0",
        1.0,
        "exact",
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("License-Expression: MIT\nLicense: x", "MIT"),
        ("License: Apache-2.0", "Apache-2.0"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("License: a text\n  over lines\nClassifier: License :: OSI Approved :: MIT License", "MIT License"),
        ("Name: x", None),
        ("", None),
    ],
)
def test_what_a_package_declares(headers: str, expected: str | None) -> None:
    assert package_license(f"{headers}\n\nLicense: not a header") == expected


def test_a_text_too_long_to_compare_is_listed_as_unidentified() -> None:
    view = view_license({"LICENSE": text(APACHE * 60), "README.md": card("apache-2.0")})
    assert [(f.key, f.match) for f in view.found] == [(None, None)]
    assert view.agreement == "unknown"
