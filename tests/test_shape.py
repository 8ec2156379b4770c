"""The shape of the code: its limits are checked, not hoped for."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "freehold").rglob("*.py"))


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of statements and comments, the signature and the docstring apart."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
        body = body[1:]
    if not body or function.end_lineno is None:
        return 0
    return sum(1 for line in lines[body[0].lineno - 1 : function.end_lineno] if line.strip())


def _long(source: str) -> list[str]:
    lines = source.splitlines()
    return [
        f"{node.name} ({_body_lines(node, lines)})"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node, lines) > 60
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_one_idea(path: Path) -> None:
    source = path.read_text("utf-8")
    assert source.count("\n") <= 500
    assert _long(source) == []
    if source.strip() and path.name != "__init__.py":
        assert ast.get_docstring(ast.parse(source)), "a module opens with what it is"


def test_the_limit_would_catch_a_long_function() -> None:
    """Control."""
    long = "def f():\n" + "    x = 1\n" * 61
    assert _long(long) == ["f (61)"]


def _codes_in_source() -> dict[str, str]:
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.setdefault(node.value, path.name)
    return found


def test_every_error_code_that_is_raised_stands_in_the_table() -> None:
    from freehold.errors import error_table

    raised = set()
    for path in SOURCES:
        raised |= set(re.findall(r"FreeholdError\(\s*\"([a-z0-9-]+)\"", path.read_text("utf-8")))
    assert raised
    assert sorted(raised - set(error_table())) == []


def test_every_error_code_in_the_table_is_used() -> None:
    """A row that nothing raises is a promise that nobody keeps."""
    from freehold.errors import error_table

    strings = _codes_in_source()
    assert sorted(code for code in error_table() if code not in strings) == []


def test_every_row_tells_what_to_do() -> None:
    from freehold.errors import error_table

    for row in error_table().values():
        assert row.summary.endswith("."), row.code
        assert row.hint, row.code
        assert 0 < row.exit < 126
        assert 400 <= row.http < 600


def test_dependencies_of_the_base_install_are_the_documented_ones() -> None:
    """Every dependency is a choice with a reason: the ADR on dependencies names each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    adr = next((ROOT / "docs" / "adr").glob("*dependencies*")).read_text("utf-8")
    for requirement in project["dependencies"]:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name
        assert f"`{name[0]}`" in adr, f"{name[0]} has no reason in the ADR"
