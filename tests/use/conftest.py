"""A ledger on disk, and a clock that the tests turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.db import Database, open_database


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def database(ledger_path: Path) -> Iterator[Database]:
    ticks = itertools.count(1_700_000_000_000_000)
    opened = open_database(ledger_path, "ledger", lambda: next(ticks))
    yield opened
    opened.close()
