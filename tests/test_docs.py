"""Docs that would go stale without anybody noticing."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
reference = runpy.run_path(str(ROOT / "scripts" / "reference.py"))
readme = runpy.run_path(str(ROOT / "scripts" / "readme.py"))

PAGES = [ROOT / n for n in ("README.md", "README.zh.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def test_the_reference_is_what_the_code_says() -> None:
    assert reference["stale"]() == [], "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_chinese_readme_keeps_step_with_the_english_one() -> None:
    """Same sections in number, same commands, same output, same links."""
    english, chinese = ((ROOT / n).read_text("utf-8") for n in ("README.md", "README.zh.md"))
    assert re.findall(r"^#+ ", english, re.MULTILINE) == re.findall(r"^#+ ", chinese, re.MULTILINE)
    assert re.findall(r"```.*?```", english, re.DOTALL) == re.findall(r"```.*?```", chinese, re.DOTALL)
    links = [sorted(set(re.findall(r"\]\(([^)]+)\)", t)) - {"README.md", "README.zh.md"}) for t in (english, chinese)]
    assert links[0] == links[1]
    assert english.count("\n| ") == chinese.count("\n| ")


def test_the_first_screen_of_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    before = text[: text.index("make test") + len("make test")]
    words = re.findall(r"[\w`'-]+", re.sub(r"\[.*?\]\(.*?\)", "", before))
    assert "make run" in before
    assert len(words) <= 80


def test_masking_hides_numbers_and_nothing_else() -> None:
    """Control: another word, a missing line or a failed step is seen."""
    masked = readme["masked"]
    line = "1. keep  keep a real model  ✓ 3.2 s\n   “so it says” 0123456789ab 98,362,432 bytes\n"
    assert masked(line) == masked(
        line.replace("3.2", "14.75").replace("so it says", "other words").replace("0123456789ab", "ba9876543210")
    )
    assert masked(line) != masked(line.replace("✓", "✗"))
    assert masked(line) != masked(line.replace("bytes", "octets"))
    assert masked(line) != masked(line.splitlines()[0])


def test_architecture_stays_short_and_names_every_top_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert text.count("\n") <= 200
    for entry in (ROOT / "src" / "freehold").iterdir():
        if entry.name not in ("__init__.py", "__main__.py", "__pycache__", "py.typed"):
            assert entry.name in text, entry.name


def test_the_version_is_one() -> None:
    import freehold

    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert freehold.__version__ == version
    assert version in (ROOT / "CHANGELOG.md").read_text("utf-8")
