"""The home folder: format version, strangers, the one server."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from freehold.db.home import ServerLock, open_home, running_server
from freehold.errors import FreeholdError


def _code(path: Path) -> str:
    with pytest.raises(FreeholdError) as caught:
        open_home(path)
    return caught.value.code


def test_a_new_home_is_made_and_opens_again(tmp_path: Path) -> None:
    home = open_home(tmp_path / "a" / "home")
    assert open_home(home.path) == home
    assert home.objects.is_dir()
    assert home.path.stat().st_mode & 0o077 == 0


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    (home.path / "format.json").write_text(json.dumps({"format": 2}))
    assert _code(home.path) == "home-newer-format"


def test_a_folder_of_other_things_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert _code(tmp_path) == "home-not-a-home"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_folder_with_only_a_configuration_becomes_a_home(tmp_path: Path) -> None:
    (tmp_path / "freehold.toml").write_text("")
    open_home(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "1"}'])
def test_a_damaged_format_file_is_an_error_with_a_code(tmp_path: Path, content: str) -> None:
    home = open_home(tmp_path / "home")
    (home.path / "format.json").write_text(content)
    assert _code(home.path) in ("home-not-a-home", "home-newer-format")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere; the parent-is-a-file case below covers the code")
def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert _code(tmp_path / "home") == "home-unwritable"
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert _code(tmp_path / "file" / "home") == "home-unwritable"


def test_only_one_server_holds_a_home_and_its_url_is_known(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home")
    assert running_server(home) is None
    with ServerLock(home).acquire() as lock:
        lock.announce("http://127.0.0.1:1")
        assert running_server(home) == "http://127.0.0.1:1"
        with pytest.raises(FreeholdError) as caught:
            ServerLock(home).acquire()
        assert caught.value.code == "server-already-running"
        assert caught.value.context["url"] == "http://127.0.0.1:1"
    assert running_server(home) is None
    with ServerLock(home).acquire():
        pass


def test_a_look_at_the_lock_does_not_refuse_a_start(tmp_path: Path) -> None:
    """`running_server` takes the lock for a moment; a server that starts just then waits it out."""
    home = open_home(tmp_path / "home")
    with ServerLock(home).acquire():
        pass
    with (home.run / "server.json").open("r", encoding="utf-8") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        threading.Timer(0.1, fcntl.flock, (glance, fcntl.LOCK_UN)).start()
        with ServerLock(home).acquire():
            time.sleep(0.1)
