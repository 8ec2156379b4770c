"""Run by a python that has Playwright: what a person does in the console with a real browser, told back as JSON.

Arguments: the server's URL, a JSON object of keys by role, the path of axe.min.js (or "").
"""

import hashlib
import json
import sys
import traceback
from pathlib import Path

from playwright.sync_api import sync_playwright

URL, KEYS, AXE = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
ARGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGES = {
    "models": "/-/",
    "empty-search": "/-/?q=nothing",
    "model": "/-/models/lab/deed",
    "files": "/-/models/lab/deed/-/files",
    "tensors": "/-/models/lab/atlas/-/tensors",
    "license": "/-/models/lab/atlas/-/license?file=LICENSE",
    "chat": "/-/chat?model=echo",
    "keys": "/-/keys",
    "usage": "/-/usage",
    "events": "/-/events",
    "chain": "/-/events/chain",
    "missing": "/-/nowhere",
    "login": "/-/login",
}
STORIES = {}
COMPLAINTS = []


def story(tell):
    STORIES[tell.__name__] = tell
    return tell


def until(page, expression, seconds=15):
    """Wait in small steps: the pages' policy forbids the evaluation that wait_for_function does."""
    for _ in range(seconds * 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {expression}")


def opened(browser, role=None, **options):
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_default_timeout(15000)
    page = context.new_page()
    page.on("console", lambda m: COMPLAINTS.append(m.text) if m.type == "error" and "status of 40" not in m.text else None)
    page.on("pageerror", lambda e: COMPLAINTS.append(str(e)))
    if role:
        page.goto(f"{URL}/-/login")
        page.fill("#key", KEYS[role])
        page.click("main button")
        page.wait_for_url(f"{URL}/-/")
    return page


@story
def search(browser):
    """Typing narrows the list in place: no new page, an address that can be shared, a count for screen readers."""
    page = opened(browser)
    page.goto(f"{URL}/-/")
    page.evaluate("window.marked = true")
    before = page.locator("tbody tr").count()
    page.locator("#q").press_sequentially("deed", delay=30)
    until(page, "document.querySelectorAll('tbody tr').length === 1")
    page.wait_for_url("**q=deed**")
    told = {
        "before": before, "after": page.locator("tbody tr").count(), "same_page": page.evaluate("window.marked === true"),
        "count": page.inner_text("#found"), "focus": page.evaluate("document.activeElement.id"),
    }  # fmt: skip
    page.reload()
    return told | {"after_reload": page.locator("tbody tr").count(), "typed": page.input_value("#q")}


@story
def sheet(browser):
    """A model's page fetches its tensors when they come into sight; a download is the file, byte for byte."""
    page = opened(browser)
    page.goto(f"{URL}/-/models/lab/deed")
    early = page.locator("#tensor-list details").count()
    page.locator("#tensors").scroll_into_view_if_needed()
    page.wait_for_selector("#tensor-list details")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download lab-llama").click()
    body = Path(waiting.value.path()).read_bytes()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=URL)
    button = page.get_by_role("button", name="Copy: Download with the stock hub client")
    button.click()
    until(page, "document.querySelector('#use .copy').textContent === 'Copied'")
    return {
        "early": early, "layers": page.locator("#tensor-list details").count(),
        "picture": page.locator("#tensor-list svg.chart").count(),
        "sha256": hashlib.sha256(body).hexdigest(), "name": waiting.value.suggested_filename,
        "copied": page.evaluate("navigator.clipboard.readText()"),
    }  # fmt: skip


WATCH = """() => {
  window.lengths = [];
  const look = () => document.querySelectorAll('.turn.assistant .said').forEach((p) => window.lengths.push(p.textContent.length));
  new MutationObserver(look).observe(document.getElementById('talk'), { childList: true, subtree: true, characterData: true });
}"""


@story
def chat(browser):
    """An answer streams in, is text whatever it says, and the next question knows it; Stop stops."""
    page = opened(browser, "chat")
    page.goto(f"{URL}/-/chat?model=echo")
    page.evaluate(WATCH)
    said = "<script>window.hacked = 1</script><img src=x onerror='window.hacked=2'> **bold** "
    page.fill("#text", said * 5)
    page.fill("#limit", "1200")
    page.press("#text", "Enter")
    page.wait_for_selector(".turn:nth-child(2)[data-complete]")
    first = page.inner_text(".turn:nth-child(2) .said")
    meter = page.inner_text(".turn:nth-child(2) .meter")
    lengths = page.evaluate("[...new Set(window.lengths)].length")
    page.fill("#text", "and again")
    page.click("#send")
    page.wait_for_selector(".turn:nth-child(4)[data-complete]")
    history = json.loads(page.locator("[name=history]").input_value())
    told = {
        "said_as_text": said.strip() in first, "meter": meter, "lengths": lengths,
        "hacked": page.evaluate("window.hacked ?? null"),
        "inside": page.locator(".said script, .said img, .said strong").count(), "roles": [t["role"] for t in history],
        "state": page.inner_text("#state"), "emptied": page.input_value("#text"),
    }  # fmt: skip
    slow = {"offline": False, "latency": 0, "downloadThroughput": 4000, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.fill("#text", "never ending story " * 40)
    page.click("#send")
    until(page, "(document.querySelector('.turn:nth-child(6) .said')?.textContent.length ?? 0) > 20")
    busy = page.get_attribute(".turn:nth-child(6)", "aria-busy")
    page.click("#stop")
    until(page, "document.getElementById('state').textContent === 'Stopped'")
    length = len(page.inner_text(".turn:nth-child(6) .said"))
    page.wait_for_timeout(300)
    return told | {
        "busy": busy, "busy_after": page.get_attribute(".turn:nth-child(6)", "aria-busy"), "stop_hidden": page.is_hidden("#stop"),
        "grew_after_stop": len(page.inner_text(".turn:nth-child(6) .said")) - length, "send_enabled": page.is_enabled("#send"),
    }  # fmt: skip


@story
def lost_session(browser):
    """Who was logged out elsewhere is told so in the chat, and the question stays in its field."""
    page = opened(browser, "chat")
    page.goto(f"{URL}/-/chat")
    page.context.clear_cookies()
    page.fill("#text", "is anybody there?")
    page.press("#text", "Enter")
    page.wait_for_selector("#failure:not([hidden])")
    return {"said": page.inner_text("#failure"), "kept": page.input_value("#text"), "turns": page.locator(".turn").count()}


@story
def key_once(browser):
    """A new secret is on the page once: not after a reload, not after going back."""
    page = opened(browser, "admin")
    page.goto(f"{URL}/-/keys")
    page.fill("#name", "made in a browser")
    page.check("#scope-chat")
    page.click("main form button")
    page.wait_for_selector(".made")
    secret = page.inner_text(".made pre").strip()
    shown = page.content().count(secret)
    page.reload()
    reloaded = secret in page.content()
    page.goto(f"{URL}/-/")
    page.go_back()
    page.wait_for_timeout(200)
    went_back = secret in page.content()
    page.get_by_role("link", name="Revoke made in a browser").click()
    question = page.inner_text("h1")
    page.get_by_role("button", name="Revoke the key").click()
    page.wait_for_url(f"{URL}/-/keys")
    row = page.locator("tr", has_text="made in a browser")
    return {
        "secret": secret, "shown": shown, "reloaded": reloaded, "back": went_back, "question": question,
        "state": row.inner_text(),
    }  # fmt: skip


def tab_to(page, wanted, most=40):
    """Press Tab until the focused element's text, label or id is `wanted`; whether each stop could be seen."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [(e.id || e.textContent || '').trim(), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]; }"
        )
        seen.append(outline)
        if name == wanted:
            return all(seen)
    raise AssertionError(f"no Tab stop {wanted!r}")


@story
def keyboard(browser):
    """From the first page to an answered question without a mouse; every stop on the way shows its focus."""
    page = opened(browser)
    page.goto(f"{URL}/-/")
    page.keyboard.press("Tab")
    skip = page.evaluate("[document.activeElement.className, document.activeElement.getBoundingClientRect().top >= 0]")
    page.keyboard.press("Enter")
    landed = page.evaluate("document.activeElement.id")
    page.goto(f"{URL}/-/")
    visible = tab_to(page, "Chat")
    page.keyboard.press("Enter")
    page.wait_for_url("**/login?return=**")
    focus = page.evaluate("document.activeElement.id")
    page.keyboard.type(KEYS["chat"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{URL}/-/chat")
    field = page.evaluate("document.activeElement.id")
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.id") == "model":
            break
    page.keyboard.type("echo")
    tab_to(page, "text")
    page.keyboard.type("hello from the keyboard")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn:nth-child(2)[data-complete]")
    return {
        "skip": skip, "landed": landed, "visible": visible, "login_focus": focus, "chat_focus": field,
        "answer": page.inner_text(".turn:nth-child(2) .said")[:500], "focus_after": page.evaluate("document.activeElement.id"),
    }  # fmt: skip


@story
def theme(browser):
    """Light and dark follow the system; a choice holds over reloads, and without scripts."""
    colour = "getComputedStyle(document.body).backgroundColor"
    told = {}
    for scheme in ("light", "dark"):
        page = opened(browser, color_scheme=scheme)
        page.goto(f"{URL}/-/")
        told[scheme] = page.evaluate(colour)
    page.click("#theme")
    told["first"] = [page.inner_text("#theme"), page.evaluate(colour)]
    page.reload()
    told["reloaded"] = [page.inner_text("#theme"), page.evaluate(colour)]
    page.click("#theme")
    page.goto(f"{URL}/-/models/lab/deed")
    told["second"] = [page.inner_text("#theme"), page.evaluate(colour)]
    plain = browser.new_context(
        java_script_enabled=False, color_scheme="light", storage_state=page.context.storage_state()
    ).new_page()
    plain.goto(f"{URL}/-/")
    told["without_scripts"] = plain.locator("html").get_attribute("data-theme")
    page.click("#theme")
    page.reload()
    told["third"] = [page.inner_text("#theme"), page.evaluate(colour)]
    return told


@story
def phone(browser):
    """No page is wider than a small phone."""
    page = opened(browser, "admin", viewport={"width": 360, "height": 740}, has_touch=True)
    told = {}
    for name, path in PAGES.items():
        page.goto(f"{URL}{path}")
        page.wait_for_timeout(100)
        told[name] = page.evaluate("document.documentElement.scrollWidth") - 360
    page.goto(f"{URL}/-/models/lab/deed")
    page.locator("#tensors").scroll_into_view_if_needed()
    page.wait_for_selector("#tensor-list details")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    told["model, all open"] = page.evaluate("document.documentElement.scrollWidth") - 360
    return told


@story
def printed(browser):
    """On paper there is no navigation, and dark ink on white."""
    page = opened(browser, color_scheme="dark")
    page.goto(f"{URL}/-/models/lab/deed")
    page.emulate_media(media="print")
    return {
        "navigation": page.is_visible(".bar nav"), "contents": page.is_visible(".contents"), "facts": page.is_visible("#facts"),
        "paper": page.evaluate("getComputedStyle(document.body).backgroundColor"),
    }  # fmt: skip


@story
def accessible(browser):
    """axe-core finds no serious or critical violation on any page, in either theme."""
    if not AXE:
        return None
    source = Path(AXE).read_text("utf-8")
    told = {}
    for scheme in ("light", "dark"):
        page = opened(browser, "admin", color_scheme=scheme)
        for name, path in PAGES.items():
            if name == "login":
                page.context.clear_cookies()
            page.goto(f"{URL}{path}")
            if name == "model":
                page.locator("#tensors").scroll_into_view_if_needed()
                page.wait_for_selector("#tensor-list details")
            if name == "chat":
                page.fill("#text", "hello")
                page.press("#text", "Enter")
                page.wait_for_selector(".turn:nth-child(2)[data-complete]")
            page.evaluate(source)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'passes']})")
            told[f"{name}, {scheme}"] = {
                "passes": len(found["passes"]),
                "violations": [
                    f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:160]}"
                    for v in found["violations"] if v["impact"] in ("serious", "critical")
                ],
            }  # fmt: skip
    return told


def main():
    told = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        for name, tell in STORIES.items():
            try:
                told[name] = tell(browser)
            except Exception:  # noqa: BLE001 - one story that fails must not silence the others
                told[name] = {"failed": traceback.format_exc()}
            for context in browser.contexts:
                context.close()
        browser.close()
    print(json.dumps(told | {"complaints": COMPLAINTS}))


main()
