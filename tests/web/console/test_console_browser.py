"""The console in headless Chromium: what scripts add, what keyboards reach, what eyes and screen readers get."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.flows.models import show_model
from freehold.procs.child import minimal_environment, run
from freehold.testing.clients import client_python, clients_root

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

STORY = Path(__file__).with_name("browser_story.py")
CHROMIUM = Path("/usr/bin/chromium")
PLAYWRIGHT = ("playwright==1.65.2",)
AXE = "axe-core@4.14.1"


def _axe() -> Path | None:
    """axe.min.js, taken from the npm registry once; None without npm or registry."""
    folder = clients_root() / AXE.replace("@", "-")
    script = folder / "axe.min.js"
    if not script.exists() and shutil.which("npm"):
        folder.mkdir(parents=True, exist_ok=True)
        run(["npm", "pack", "--silent", "--pack-destination", str(folder), AXE], env=dict(os.environ), timeout=120)
        for archive in folder.glob("*.tgz"):
            with tarfile.open(archive) as packed:
                member = packed.extractfile("package/axe.min.js")
                if member is not None:
                    script.with_suffix(".part").write_bytes(member.read())
                    script.with_suffix(".part").replace(script)
    return script if script.exists() else None


@pytest.fixture(scope="module")
def told(console: Any) -> dict[str, Any]:
    """All stories, told by one browser."""
    if not CHROMIUM.exists():
        pytest.skip(f"not run: {CHROMIUM} is missing (apt-get install chromium)")
    python = client_python(PLAYWRIGHT)
    lines: list[str] = []
    argv = [str(python), str(STORY), console.url, json.dumps(console.keys), str(_axe() or "")]
    done = run(argv, env=minimal_environment(NO_PROXY="127.0.0.1,localhost"), on_line=lines.append, timeout=500)
    assert done.exit.ok, done.tail
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@pytest.fixture
def tale(told: dict[str, Any]) -> Callable[[str], Any]:
    """One story, or its failure."""

    def one(name: str) -> Any:
        found = told[name]
        if isinstance(found, dict) and "failed" in found:
            pytest.fail(found["failed"], pytrace=False)
        return found

    return one


def test_typing_searches_in_place(tale: Any) -> None:
    found = tale("search")
    assert (found["before"], found["after"], found["after_reload"]) == (2, 1, 1)
    assert found["same_page"]
    assert found["count"] == "1 of 2 models"
    assert found["focus"] == "q"
    assert found["typed"] == "deed"


def test_a_sheet_loads_its_tensors_when_seen_and_its_download_is_the_file(tale: Any, console: Any) -> None:
    found = tale("sheet")
    assert found["early"] == 0
    assert found["layers"] > 1
    assert found["picture"] == 1
    weights = max(show_model(console.house.parts, console.house.caller, "lab/deed").manifest, key=lambda e: e.size)
    assert found["sha256"] == weights.sha256.hex
    assert found["name"] == weights.path
    assert found["copied"] == f"HF_ENDPOINT={console.url} hf download lab/deed"


def test_an_answer_streams_as_text_and_can_be_stopped(tale: Any) -> None:
    found = tale("chat")
    assert found["lengths"] >= 3
    assert found["said_as_text"]
    assert found["hacked"] is None
    assert found["inside"] == 0
    assert "tokens in" in found["meter"]
    assert found["state"].startswith("Answered")
    assert found["roles"] == ["user", "assistant"] * 2
    assert found["emptied"] == ""
    assert (found["busy"], found["busy_after"]) == ("true", None)
    assert found["stop_hidden"]
    assert found["send_enabled"]
    assert found["grew_after_stop"] == 0


def test_a_lost_session_is_told_in_place_and_the_question_stays(tale: Any) -> None:
    found = tale("lost_session")
    assert "session has ended" in found["said"]
    assert found["kept"] == "is anybody there?"
    assert found["turns"] == 0


def test_a_secret_is_seen_once_and_revoking_asks(tale: Any) -> None:
    found = tale("key_once")
    assert found["secret"].startswith("fh_")
    assert found["shown"] == 1
    assert not found["reloaded"]
    assert not found["back"]
    assert "made in a browser" in found["question"]
    assert "revoked" in found["state"]


def test_the_keyboard_alone_leads_to_an_answer(tale: Any) -> None:
    found = tale("keyboard")
    assert found["skip"] == ["skip", True]
    assert found["landed"] == "main"
    assert found["visible"]
    assert (found["login_focus"], found["chat_focus"], found["focus_after"]) == ("key", "text", "text")
    assert "hello from the keyboard" in found["answer"]


def test_the_theme_follows_the_system_until_chosen_and_the_choice_stays(tale: Any) -> None:
    found = tale("theme")
    assert found["light"] != found["dark"]
    assert found["first"] == ["Theme: light", found["light"]]
    assert found["reloaded"] == found["first"]
    assert found["second"] == ["Theme: dark", found["dark"]]
    assert found["without_scripts"] == "dark"
    assert found["third"] == ["Theme: auto", found["dark"]]


def test_no_page_is_wider_than_a_phone(tale: Any) -> None:
    found = tale("phone")
    assert len(found) > 10
    assert {name: over for name, over in found.items() if over > 0} == {}


def test_a_sheet_prints_as_a_sheet(tale: Any) -> None:
    assert tale("printed") == {"navigation": False, "contents": False, "facts": True, "paper": "rgb(255, 255, 255)"}


def test_axe_finds_nothing_serious_on_any_page_in_either_theme(tale: Any) -> None:
    found = tale("accessible")
    if found is None:
        pytest.skip(f"not run: cannot get {AXE} from the npm registry")
    assert len(found) >= 24
    assert min(page["passes"] for page in found.values()) > 10  # the control: it did look
    assert {name: page["violations"] for name, page in found.items() if page["violations"]} == {}


def test_no_page_broke_its_own_content_security_policy_or_threw(told: dict[str, Any]) -> None:
    assert told["complaints"] == []
