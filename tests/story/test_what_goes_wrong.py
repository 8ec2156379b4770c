"""What goes wrong at the command line: a mistyped line, an unfit home, a damaged one, an output that is closed.

Each is told with its code, a hint and the code's exit status, never a traceback, and nothing that was kept is lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GGUF = "acme/talker"
ODD = [
    ("hf:a/b/c", "catalog-id-invalid"),
    ("hf:acme/../../etc/passwd", "catalog-id-invalid"),
    ("hf:\u00e4cme/m\u00f6del", "catalog-id-invalid"),
    ("hf:acme/na\x1b[31mme", "catalog-id-invalid"),
    ("hf:" + "x" * 500, "catalog-id-invalid"),
    ("hf:-/settings", "catalog-id-invalid"),
    ("pypi:a b; rm -rf ~", "keep-reference-invalid"),
    ("pypi:", "keep-reference-invalid"),
    ("s3:bucket/model", "keep-reference-invalid"),
    ("acme/talker", "keep-path-not-found"),
    ("", "keep-reference-invalid"),
]


@pytest.mark.parametrize(("reference", "code"), ODD[:2] + [pytest.param(*row, marks=pytest.mark.faults) for row in ODD[2:]])
def test_what_cannot_be_a_model_is_refused_without_a_step_outside(cli: Any, reference: str, code: str) -> None:
    ended = cli("pull", reference, "--endpoint", "http://127.0.0.1:9").refused(code)
    assert "\x1b[31m" not in ended.err, "what was typed does not steer the terminal"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("show", "acme/nothing"), "catalog-repo-not-found"),
        (("show", GGUF, "--revision", "v7"), "catalog-revision-not-found"),
        (("show", "../etc"), "catalog-id-invalid"),
        (("rm", "acme/nothing", "--yes"), "catalog-repo-not-found"),
        (("verify", "acme/nothing"), "catalog-repo-not-found"),
        (("chat", "acme/nothing", "hello"), "use-model-not-found"),
        (("chat", f"{GGUF}@v7", "hello"), "use-model-not-found"),
        (("key", "revoke", "nobody"), "access-key-not-found"),
        (("key", "create", "--name", "x", "--scope", "root"), "access-scope-unknown"),
        (("usage", "--credit", "nobody", "5"), "access-key-not-found"),
    ],
)
def test_a_wrong_name_is_told_with_what_to_do(stocked: Any, args: tuple[str, ...], code: str) -> None:
    stocked(*args).refused(code)
    asked_as_json = stocked(*args, "--json")
    assert json.loads(asked_as_json.err)["error"]["code"] == code
    assert json.loads(asked_as_json.err)["error"]["hint"]
    assert asked_as_json.out == ""
    assert sorted(stocked.kept()) == [GGUF]


@pytest.mark.faults
@pytest.mark.parametrize(
    "args",
    [
        ("key", "create", "--name", "a\nb"),
        ("key", "create", "--name", " "),
        ("key", "create", "--name", "x", "--expires", "99999999w"),
        ("key", "create", "--name", "x", "--expires", "soon"),
        ("usage", "--since", "yesterday"),
        ("usage", "--requests", "3", "--check"),
        ("usage", "--credit", "x", "-5"),
        ("up", "--port", "70000"),
        ("chat", GGUF, "hi", "--max-tokens", "0"),
        ("events", "--limit", "0"),
        ("pul", "x"),
    ],
)
def test_a_mistyped_line_says_what_it_takes(stocked: Any, args: tuple[str, ...]) -> None:
    ended = stocked(*args)
    assert ended.code == 2, ended
    assert "Usage: freehold" in ended.err
    assert "Error: " in ended.err
    assert "Traceback" not in ended.err
    assert stocked("key", "list", "--json").json() == []


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("[server]\nprot = 1\n", "config-unknown-key", "'prot'"),
        pytest.param("[sever]\nport = 1\n", "config-unknown-key", "[sever]", marks=pytest.mark.faults),
        pytest.param('[server]\nport = "one"\n', "config-bad-value", "server.port", marks=pytest.mark.faults),
        pytest.param("[server]\nport = 99999\n", "config-bad-value", "server.port", marks=pytest.mark.faults),
        pytest.param("[server\n", "config-unreadable", "line 1", marks=pytest.mark.faults),
    ],
)
def test_a_setting_that_means_nothing_is_named_and_nothing_is_touched(stocked: Any, text: str, code: str, word: str) -> None:
    file = stocked.home / "freehold.toml"
    file.write_text(text)
    stocked("ls").refused(code, word, "freehold.toml" if "unknown" in code else "")
    file.unlink()
    assert sorted(stocked.kept()) == [GGUF]


@pytest.mark.faults
def test_a_variable_that_is_no_setting_is_named(stocked: Any) -> None:
    stocked("ls", FREEHOLD_SERVER__PROT="1").refused("config-unknown-key", "FREEHOLD_SERVER__PROT")
    stocked("ls", FREEHOLD_KEEP__TOKEN_FILE="/nonexistent").refused("config-bad-value", "/nonexistent")


def test_a_home_of_a_newer_freehold_is_left_alone(stocked: Any) -> None:
    marker = stocked.home / "format.json"
    old = marker.read_text()
    marker.write_text('{"format": 2, "product": "freehold"}')
    before = _listing(stocked.home)
    stocked("ls").refused("home-newer-format", "2")
    assert _listing(stocked.home) == before, "nothing was written"
    marker.write_text(old)
    assert sorted(stocked.kept()) == [GGUF]


def test_a_folder_of_other_things_and_a_file_are_no_home(cli: Any) -> None:
    cli.home.mkdir()
    (cli.home / "thesis.tex").write_text("do not touch")
    cli("ls").refused("home-not-a-home", "thesis.tex")
    assert [p.name for p in cli.home.iterdir()] == ["thesis.tex"]
    shutil.rmtree(cli.home)
    cli.home.write_text("a file")
    cli("ls").refused("home-unwritable", str(cli.home))
    assert cli.home.read_text() == "a file"


@pytest.mark.faults
def test_a_home_that_may_not_be_written_is_told(stocked: Any, tmp_path: Path) -> None:
    cli, place = stocked, tmp_path / "mounted"
    if os.geteuid() == 0:
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("root without the right to mount a file system")
        try:
            subprocess.run(["cp", "-a", f"{cli.home}/.", str(place)], check=True)
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            cli.home = place
            for args in (("ls",), ("up", "--port", "0"), ("pull", "hf:acme/x")):
                cli(*args).refused("home-unwritable", str(place))
            subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
            cli.sound(GGUF)
        finally:
            subprocess.run(["umount", "-l", str(place)], check=True)
    else:
        cli.home.chmod(0o500)
        cli("ls").refused("home-unwritable", str(cli.home))
        cli.home.chmod(0o700)
        cli.sound(GGUF)


@pytest.mark.faults
def test_a_damaged_catalog_is_named_and_the_bytes_stay(stocked: Any) -> None:
    catalog = stocked.home / "catalog.db"
    good = catalog.read_bytes()
    blobs = _listing(stocked.home / "vault")
    catalog.write_bytes(b"\0" * 100 + os.urandom(8000))
    stocked("ls").refused("db-corrupt", "catalog.db")
    catalog.write_bytes(good)
    assert _listing(stocked.home / "vault") == blobs
    stocked.sound(GGUF)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["catalog", "vault", "ledger"])
def test_no_damage_of_a_database_shows_a_traceback_or_loses_bytes(stocked: Any, name: str) -> None:
    file = stocked.home / f"{name}.db"
    good = file.read_bytes()
    blobs = _listing(stocked.home / "vault")
    torn = bytearray(good)
    for page in range(4096 * 2, len(torn), 4096):
        torn[page : page + 300] = b"\xff" * 300
    for bad in (bytes(torn), good[: len(good) // 2], b"not a database at all"):
        file.write_bytes(bad)
        for args in (("verify",), ("events", "--verify"), ("usage", "--check"), ("up", "--port", "0")):
            ended = stocked(*args) if args[0] != "up" else _started_and_ended(stocked, args)
            assert "Traceback" not in ended.out + ended.err, ended
            assert "internal-bug" not in ended.err, ended
            if ended.code and "error " in ended.err:
                ended.refused("db-corrupt", f"{name}.db")
        for leftover in stocked.home.glob(f"{name}.db-*"):
            leftover.unlink()
    file.write_bytes(good)
    assert _listing(stocked.home / "vault") == blobs
    stocked.sound(GGUF)


@pytest.mark.faults
def test_a_lost_catalog_is_seen_by_the_doctor_and_pulling_again_costs_no_transfer(stocked: Any, upstream: Any) -> None:
    (stocked.home / "catalog.db").unlink()
    assert stocked.kept() == {}
    told = {d["name"]: d for d in json.loads(stocked("doctor", "--json").out)}
    assert told["catalog"]["state"] == "warn"
    assert "backup" in told["catalog"]["hint"]
    ended = stocked("pull", f"hf:{GGUF}", "--endpoint", upstream.url, "--json").json()
    assert ended["new_bytes"] < 1000, "a hidden file, which a folder's pull leaves behind"
    assert not [r for r in upstream.requests if r.path.endswith(".gguf") and r.sent > 1000], "the weights were still here"
    stocked.sound(GGUF)


@pytest.mark.faults
def test_a_lost_index_of_the_vault_loses_nothing(stocked: Any) -> None:
    (stocked.home / "vault.db").unlink()
    told = {d["name"]: d for d in json.loads(stocked("doctor", "--json").out)}
    assert told["catalog"]["state"] == "bad"
    assert "--rebuild-index" in told["catalog"]["hint"]
    stocked("verify", "--rebuild-index").fine()
    stocked.sound(GGUF)


def test_a_reader_that_closes_early_is_no_failure_to_talk_about(stocked: Any) -> None:
    process = stocked.start("config", "show")
    assert process.stdout is not None
    process.stdout.read(20)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) in (0, 1, 141)
    assert "Traceback" not in err
    assert "error" not in err
    assert "Exception" not in err


@pytest.mark.faults
def test_an_output_that_cannot_be_written_is_told(stocked: Any) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("not run: this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "freehold", "--home", str(stocked.home), "ls"]
        process = subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 74
    assert "No space left" in err
    assert "bug" not in err
    assert "Traceback" not in err


def test_a_home_works_where_it_is_copied_to(stocked: Any, tmp_path: Path) -> None:
    """The fixture is such a copy; here the first place is gone, and no file names it."""
    first, second = stocked.home, tmp_path / "elsewhere" / "moved home"
    second.parent.mkdir()
    first.rename(second)
    stocked.home = second
    assert sorted(stocked.kept()) == [GGUF]
    assert stocked("verify", "--json").json()["ok"]
    naming = [p for p in second.rglob("*") if p.is_file() and str(first).encode() in p.read_bytes()]
    assert naming == []


@pytest.mark.faults
def test_what_a_model_says_of_itself_does_not_steer_the_terminal(stocked: Any, tmp_path: Path) -> None:
    from freehold.formats.gguf_writer import write_gguf

    bad = "\x1b]0;owned\x07\x1b[2Jllama\u202e\x9b31m"
    folder = tmp_path / "hostile"
    folder.mkdir()
    with (folder / "m.gguf").open("wb") as file:
        write_gguf(
            file, {"general.architecture": bad, "general.license": bad, "general.name": bad, f"{bad}.context_length": 4}, []
        )
    (folder / "README.md").write_text(f'---\nlicense: "{json.dumps(bad)[1:-1]}"\n---\n# x\n')
    for args in (("pull", str(folder), "--name", "acme/hostile"), ("ls",), ("show", "acme/hostile"), ("chat",)):
        ended = stocked(*args)
        assert "Traceback" not in ended.err
        shown = ended.out + ended.err
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown), (args, shown)
    stocked("rm", "acme/hostile", "--yes")


def _started_and_ended(cli: Any, args: tuple[str, ...]) -> Any:
    process = cli.start(*args)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.terminate()
    return cli.finish(process, args)


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()
    }
