"""What all tests share: the tiers, and the rule that in CI nothing may be left out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with something else is slow, which says nothing of the code
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")

# A shell without job control starts background work with SIGINT ignored, and children inherit that: tests of Ctrl-C would wait
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TIERS = ("clients", "browser", "proxy", "faults", "online")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without -m, the tests of the other tiers are deselected: they have their own run."""
    if config.option.markexpr or any("::" in arg for arg in config.args):
        return
    kept, left = [], []
    for item in items:
        (left if any(item.get_closest_marker(tier) for tier in TIERS) else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """In CI a test that was "not run" has failed: .ci/run installs what is needed."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "not run:" in reason:
            report.outcome = "failed"
            report.longrepr = f"in CI every test runs, but this one says: {reason}"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, the home or the tokens of whoever runs it."""
    for name in list(os.environ):
        if (name.startswith("FREEHOLD_") and not name.startswith("FREEHOLD_TEST_")) or name in (
            "HF_TOKEN",
            "HF_ENDPOINT",
            "HF_HOME",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FREEHOLD_HOME", str(tmp_path / "home"))
