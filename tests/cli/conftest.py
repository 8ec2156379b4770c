"""The command line in this process, as `freehold` runs it: quick enough to be asked often."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("usage", "--json", stdin="...")`."""
    from freehold.cli import main

    def call(*args: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        monkeypatch.setattr("sys.argv", ["freehold", *args])
        capsys.readouterr()
        try:
            main(list(args))
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, said.out, said.err)

    return call
