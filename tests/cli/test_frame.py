"""The command line's frame: light to start, every failure with its code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def freehold(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "freehold", *args], capture_output=True, text=True, timeout=60, check=False, env=os.environ | env
    )


def test_help_loads_neither_numpy_nor_sqlalchemy() -> None:
    code = (
        "import sys, freehold.cli\n"
        "try: freehold.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'sqlalchemy', 'aiohttp', 'starlette', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_has_help_and_its_line_in_the_list() -> None:
    from freehold.cli import COMMANDS, root

    for name in COMMANDS:
        command = root.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.help, name


def test_an_unknown_command_suggests_the_near_one() -> None:
    done = freehold("pul", "x")
    assert done.returncode == 2
    assert "pull" in done.stderr


def test_an_unknown_configuration_key_stops_every_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "freehold.toml").write_text("[server]\nprot = 1\n")
    done = freehold("--home", str(home), "ls")
    assert done.returncode == 78
    assert "config-unknown-key" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_newer_home_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert freehold("--home", str(home), "ls").returncode == 0
    (home / "format.json").write_text('{"format": 99}')
    done = freehold("--home", str(home), "ls", "--json")
    assert done.returncode == 78
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "home-newer-format"


def test_a_key_is_created_listed_and_revoked(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home"))
    made = json.loads(freehold(*home, "key", "create", "--name", "ci", "--scope", "read", "--expires", "2d", "--json").stdout)
    assert made["key"].startswith("fh_")
    listed = freehold(*home, "key", "list", "--json").stdout
    assert made["key"] not in listed
    assert [(k["id"], k["state"]) for k in json.loads(listed)] == [(made["id"], "active")]
    assert freehold(*home, "key", "revoke", made["id"]).returncode == 0
    assert json.loads(freehold(*home, "key", "list", "--json").stdout)[0]["state"] == "revoked"
    assert freehold(*home, "key", "revoke", "nothing").returncode == 66
    assert freehold(*home, "key", "create", "--name", "x", "--scope", "root").returncode == 64
    events = json.loads(freehold(*home, "events", "--json").stdout)
    assert [e["kind"] for e in events] == ["key.revoked", "key.created"]
    assert "2 rows" in freehold(*home, "events", "--verify").stdout


def test_completion_scripts_name_the_program() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_FREEHOLD_COMPLETE" in freehold("completion", shell).stdout


def test_config_show_lists_every_key_with_its_source(tmp_path: Path) -> None:
    done = freehold("--home", str(tmp_path / "home"), "config", "show", "--json", FREEHOLD_SERVER__PORT="1234")
    rows = {r["key"]: r for r in json.loads(done.stdout)}
    assert (rows["server.port"]["value"], rows["server.port"]["source"]) == (1234, "environment")
    assert not (tmp_path / "home").exists()
