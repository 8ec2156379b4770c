"""Settings: flag > environment > file > default, and nothing is silently ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from freehold.config import Settings, load_settings, read_secret, with_flags
from freehold.errors import FreeholdError


def _load(tmp_path: Path, toml: str = "", **environ: str):
    file = tmp_path / "freehold.toml"
    file.write_text(toml, "utf-8")
    return load_settings(file, environ)


def _code(tmp_path: Path, toml: str = "", **environ: str) -> str:
    with pytest.raises(FreeholdError) as caught:
        _load(tmp_path, toml, **environ)
    return caught.value.code


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    settings, rows = _load(tmp_path)
    assert settings == Settings()
    assert settings.server.host == "127.0.0.1"
    assert {r.source for r in rows} == {"default"}
    assert all(r.doc.endswith((".", ")")) for r in rows)


def test_environment_beats_file_and_a_flag_beats_both(tmp_path: Path) -> None:
    toml = '[server]\nport = 1\nhost = "::1"\n[hub]\nupstreams = ["http://a", "http://b"]\n'
    settings, rows = _load(tmp_path, toml, FREEHOLD_SERVER__PORT="2", FREEHOLD_HUB__OFFLINE="true")
    assert (settings.server.port, settings.server.host, settings.hub.offline) == (2, "::1", True)
    assert settings.hub.upstreams == ("http://a", "http://b")
    source = {r.key: r.source for r in rows}
    assert (source["server.port"], source["server.host"], source["use.context"]) == ("environment", "file", "default")
    assert with_flags(settings, "server", port=3, host=None).server.port == 3


def test_unknown_keys_are_errors_wherever_they_stand(tmp_path: Path) -> None:
    assert _code(tmp_path, "[server]\nprot = 1\n") == "config-unknown-key"
    assert _code(tmp_path, "[sever]\nport = 1\n") == "config-unknown-key"
    assert _code(tmp_path, "port = 1\n") == "config-unknown-key"
    assert _code(tmp_path, "", FREEHOLD_SERVER__PROT="1") == "config-unknown-key"
    assert _code(tmp_path, "", FREEHOLD_PORT="1") == "config-unknown-key"


@pytest.mark.parametrize(
    "toml",
    [
        '[server]\nport = "80"\n',
        "[server]\nport = true\n",
        "[server]\nport = 70000\n",
        "[server]\nport = -1\n",
        '[vault]\nread_policy = "maybe"\n',
        "[hub]\nupstreams = [1]\n",
        '[hub]\nupstreams = ["ftp://x"]\n',
        "[use]\ncontext = 0\n",
        '[keep]\nendpoint = "example.org"\n',
        '[hub]\nupstreams = ["http://a:b:c"]\n',
        '[hub]\nupstreams = ["http://[::1"]\n',
        '[keep]\nendpoint = "http://a:99999"\n',
        "[vault]\nreserve_mb = -5\n",
        "[vault]\nmax_age_hours = -1\n",
    ],
)
def test_values_of_the_wrong_kind_are_refused(tmp_path: Path, toml: str) -> None:
    assert _code(tmp_path, toml) == "config-bad-value"


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    assert _code(tmp_path, "[server\n") == "config-unreadable"
    (tmp_path / "freehold.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FreeholdError) as caught:
        load_settings(tmp_path / "freehold.toml", {})
    assert caught.value.code == "config-unreadable"


@pytest.mark.parametrize(("name", "value"), [("FREEHOLD_SERVER__PORT", "x"), ("FREEHOLD_HUB__OFFLINE", "maybe")])
def test_environment_values_are_parsed_strictly(tmp_path: Path, name: str, value: str) -> None:
    assert _code(tmp_path, "", **{name: value}) == "config-bad-value"


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" abc\n")
    assert read_secret(str(tmp_path / "token")) == "abc"
    assert read_secret("") is None
    with pytest.raises(FreeholdError) as caught:
        read_secret(str(tmp_path / "nothing"))
    assert caught.value.code == "config-bad-value"
