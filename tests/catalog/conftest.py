"""A catalog on real SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.db import Database, open_database


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Database]:
    database = open_database(tmp_path / "catalog.db", "catalog", lambda: 1)
    yield database
    database.close()
