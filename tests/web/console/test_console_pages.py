"""What a visitor can read, without scripts and without a key; and that nothing kept can write into a page."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from freehold.catalog import events, facts, repos, revisions
from freehold.catalog.revisions import NewRevision
from freehold.flows.models import show_model
from freehold.nouns.digest import Digest
from freehold.nouns.files import FileEntry, Manifest
from freehold.nouns.ids import CommitId, RepoId
from freehold.nouns.origin import Admission, Evidence, Finding, Lineage, Origin, Relation, Severity
from freehold.testing.kept import keep

ATTACK = '<script>alert("x")</script>'


def test_the_list_shows_each_model_with_its_facts(console: Any) -> None:
    page = console.browser().get("/-/")
    assert page.status == 200
    assert "2 models on your own ground" in page.text
    for name, kind in (("atlas", "BF16"), ("deed", "llama")):
        row = re.search(rf'<tr role="row">(?:(?!</tr>).)*?lab/</span><wbr>{name}</a>.*?</tr>', page.text, re.DOTALL)
        assert row
        assert kind in row[0]
        assert "admitted" in row[0]
        assert "folder" in row[0]
        assert "mit" in row[0]


def test_search_and_order_work_as_a_plain_form(console: Any) -> None:
    browser = console.browser()
    assert "deed" not in browser.get("/-/?q=atlas").text
    assert "atlas" not in browser.get("/-/?q=GGUF").text
    none = browser.get("/-/?q=no+such+model")
    assert "No model matches" in none.text
    assert none.status == 200
    by_name, largest = browser.get("/-/?sort=name").text, browser.get("/-/?sort=newest").text
    assert by_name.index("atlas</a>") < by_name.index("deed</a>")
    assert largest.index("deed</a>") < largest.index("atlas</a>")


def test_live_search_gets_the_table_alone_with_the_count_for_screen_readers(console: Any) -> None:
    part = console.browser().get("/-/?q=atlas", HX_Target="register")
    assert part.text.lstrip().startswith('<div id="register">')
    assert "<html" not in part.text
    assert ">1 of 2 models<" in part.text
    assert part.headers["vary"] == "HX-Target"


def test_an_empty_house_says_how_to_begin(own: Any) -> None:
    page = own.browser().get("/-/")
    assert "Nothing is kept here yet" in page.text
    assert "freehold pull hf:ORG/NAME" in page.text
    assert "<table" not in page.text


def test_a_model_has_its_whole_sheet_and_links_to_downloads_that_give_its_bytes(console: Any) -> None:
    browser = console.browser()
    view = show_model(console.house.parts, console.house.caller, "lab/atlas")
    page = browser.get("/-/models/lab/atlas")
    assert page.status == 200
    for title in ("Overview", "Files", "Tensors", "License", "Origin", "Findings", "Revisions", "Use it"):
        assert re.search(rf"<h2[^>]*>{title}</h2>", page.text), title
    assert f"HF_ENDPOINT={console.url} hf download lab/atlas" in page.text
    assert "Declared and found agree" in page.text
    for entry in list(view.manifest)[:12]:
        assert entry.sha256.hex in page.text
        link = f"/lab/atlas/resolve/{view.revision.commit}/{entry.path}?download=true"
        assert f'href="{link}"' in page.text
        assert hashlib.sha256(browser.get(link).body).hexdigest() == entry.sha256.hex


def test_tensors_are_listed_layer_by_layer_over_pages_that_leave_none_out(console: Any) -> None:
    browser = console.browser()
    names: list[str] = []
    pages = 1
    number = 1
    while number <= pages:
        page = browser.get(f"/-/models/lab/atlas/-/tensors?page={number}")
        names += re.findall(r'scope="row"><code>([^<]+)</code>', page.text)
        found = re.search(r"Page \d+ of (\d+)", page.text)
        pages = int(found[1]) if found else 1
        number += 1
    total = re.search(r"(\d+) tensors in (\d+) layers", page.text)
    assert total
    assert len(names) == len(set(names)) == int(total[1])
    assert "model.embed_tokens.weight" in names
    assert "Layer 0" in browser.get("/-/models/lab/atlas/-/tensors").text
    assert '<svg class="chart"' in page.text
    part = browser.get("/-/models/lab/deed/-/tensors", HX_Target="tensor-list")
    assert part.text.lstrip().startswith('<div id="tensor-list">')


def test_the_license_is_shown_as_it_is_kept(console: Any) -> None:
    page = console.browser().get("/-/models/lab/atlas/-/license?file=LICENSE")
    assert page.status == 200
    assert "Permission is hereby granted, free of charge" in page.text
    assert console.browser().get("/-/models/lab/atlas/-/license?file=../../etc/passwd").status == 404


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/-/models/lab/nothing", 404, "catalog-repo-not-found"),
        ("/-/models/lab/atlas?revision=nope", 404, "catalog-revision-not-found"),
        ("/-/models/a--b", 400, "catalog-id-invalid"),
        ("/-/nowhere", 404, "console-page-not-found"),
        ("/-/models/a/b/c/d", 404, "console-page-not-found"),
        ("/-/models/lab/atlas/-/license?file=none.txt", 404, "catalog-entry-not-found"),
    ],
)
def test_a_failure_is_a_page_in_style_with_code_message_and_hint(console: Any, path: str, status: int, code: str) -> None:
    page = console.browser().get(path)
    assert page.status == status
    assert f"<code>{code}</code>" in page.text
    assert "What to do." in page.text
    assert 'href="/-/"' in page.text


def test_odd_page_numbers_are_the_first_or_the_last_page(console: Any) -> None:
    for asked in ("0", "-1", "x", "99999999999999999999", "%C2%B2", ""):
        assert "lab/" in console.browser().get(f"/-/?page={asked}").text


def test_every_answer_forbids_inline_code_framing_and_sniffing(console: Any) -> None:
    for path in ("/-/", "/-/login", "/-/nowhere", "/-/models/lab/atlas", "/-/models/x", "/-/keys"):
        headers = console.browser().get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_no_page_holds_inline_style_or_script(console: Any) -> None:
    browser = console.browser("admin")
    for path in ("/-/", "/-/models/lab/atlas", "/-/models/lab/deed/-/tensors", "/-/chat", "/-/keys", "/-/usage", "/-/events"):
        page = browser.get(path)
        assert page.status == 200, path
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", page.text), path
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page.text)), path


def test_assets_come_from_here_and_may_be_kept_for_ever_under_their_version(console: Any) -> None:
    browser = console.browser()
    page = browser.get("/-/").text
    found = re.findall(r'(?:src|href)="([^"]*/static/[^"]+)"', page)
    assert len(found) >= 4
    for link in found:
        got = browser.get(link)
        assert got.status == 200
        assert "immutable" in got.headers["cache-control"]
        assert browser.get(link, If_None_Match=got.headers["etag"]).status == 304
        assert browser.get(link.partition("?")[0]).headers["cache-control"] == "no-cache"
    assert browser.get("/-/static/../page.py").status == 404
    assert browser.get("/-/static/none.js").status == 404
    assert not re.search(r'(?:src|href)="https?://', page)


def test_what_is_kept_cannot_write_into_a_page(own: Any) -> None:
    """License tags, origins, lineage, findings, texts and event payloads are other people's words."""
    parts = own.house.parts
    commit = keep(
        parts, "lab/hostile", {"LICENSE": ATTACK.encode(), f"{ATTACK.replace('/', '')}.txt": b"x"}, title=ATTACK,
        model_facts={"format": ATTACK, "architecture": ATTACK, "chat_template": ATTACK, "dtypes": {ATTACK: 7},
                     "extra": {ATTACK: ATTACK}},
        license_view={"declared": ATTACK, "found": [{"path": "LICENSE", "name": ATTACK}], "agreement": ATTACK, "reason": ATTACK},
    )  # fmt: skip
    now = parts.clock()
    with parts.catalog.write() as tx:
        revision = revisions.resolve(tx, repos.get_repo(tx, RepoId.parse("lab/hostile")))
        facts.add_origin(tx, revision, Origin("hf", ATTACK, now, ATTACK, detail={ATTACK: ATTACK}))
        facts.add_lineage(tx, revision, [Lineage(ATTACK, Relation.MERGE, Evidence.DECLARED)], now)
        facts.add_findings(
            tx, [Finding(f"commit:{commit}", "odd", Severity.WARNING, "m", {"message": ATTACK, "list": [ATTACK]})], now
        )
        events.append_event(tx, now, ATTACK, "model.pulled", ATTACK, {"name": ATTACK})
    browser = own.browser("admin")
    pages = ["/-/", "/-/models/lab/hostile", "/-/models/lab/hostile/-/license?file=LICENSE", "/-/events", f"/-/?q={ATTACK}"]
    for path in [p.replace("<", "%3C").replace(">", "%3E").replace('"', "%22") for p in pages]:
        page = browser.get(path)
        assert page.status == 200, path
        assert "alert(" in page.text, path
        assert "<script>alert" not in page.text, path


def test_severities_and_states_are_told_by_word_and_shape_not_by_colour_alone(own: Any) -> None:
    parts = own.house.parts
    commit = keep(parts, "lab/held", {"evil.pkl": b"x"}, admission=Admission.QUARANTINED, model_facts={"format": "pickle"})
    found = [Finding(f"commit:{commit}", f"kind-{s}", s, "m", {"message": f"said {s}"}) for s in Severity]
    with parts.catalog.write() as tx:
        facts.add_findings(tx, found, parts.clock())
    page = own.browser().get("/-/models/lab/held").text
    for severity in Severity:
        assert re.search(rf'class="severity {severity}"><svg.*?</svg>{severity}</span>', page)
    said = [page.index(f"said {s}") for s in (Severity.CRITICAL, Severity.WARNING, Severity.NOTICE, Severity.INFO)]
    assert said == sorted(said)
    assert "This revision is quarantined" in page
    assert "hf download" not in page
    assert "?download=true" not in page


def test_a_model_without_a_namespace_and_older_revisions_have_pages(own: Any) -> None:
    parts = own.house.parts
    first = keep(parts, "bare", {"a.txt": b"old"}, refs=("tags/v0",))
    keep(parts, "bare", {"a.txt": b"new"})
    browser = own.browser()
    assert hashlib.sha256(b"new").hexdigest() in browser.get("/-/models/bare").text
    for revision in ("v0", first, first[:9]):
        page = browser.get(f"/-/models/bare?revision={revision}")
        assert hashlib.sha256(b"old").hexdigest() in page.text
        assert first in page.text
    assert browser.get("/-/models/bare/-/files?revision=v0").status == 200
    assert "No tensors" in browser.get("/-/models/bare/-/tensors").text


def test_many_files_are_paged_and_each_stands_on_one_page(own: Any) -> None:
    _record(own, "lab/many", Manifest(tuple(FileEntry(f"f{i:04}.txt", i, Digest.sha256("0" * 64), "0" * 40) for i in range(450))))
    browser = own.browser()
    assert "All 450 files" in browser.get("/-/models/lab/many").text
    found = []
    for page in (1, 2, 3):
        found += re.findall(r"<code>(f\d{4}\.txt)<", browser.get(f"/-/models/lab/many/-/files?page={page}").text)
    assert found == [f"f{i:04}.txt" for i in range(450)]


def test_behind_a_path_every_link_form_and_cookie_holds_whether_or_not_the_proxy_cuts_it_off(
    tmp_path: Path, open_home: Any
) -> None:
    with open_home(tmp_path / "home", base_url="https://models.example.org/hub") as found:
        browser = found.browser()
        for path in ("/hub/-/", "/-/", "/-/models/lab/atlas", "/hub/-/models/lab/atlas/-/tensors"):
            page = browser.get(path)
            assert page.status == 200
            links = re.findall(r'(?:href|src|action|hx-get|data-path)="(/[^"]*)"', page.text)
            assert links
            assert [x for x in links if not x.startswith("/hub/")] == []
        assert "HF_ENDPOINT=https://models.example.org/hub hf download lab/atlas" in browser.get("/-/models/lab/atlas").text
        assert browser.get("/-/keys").place == "/hub/-/login?return=%2Fhub%2F-%2Fkeys"
        page = browser.get("/-/login?return=%2Fhub%2F-%2Fkeys")
        fields = {"csrf": page.token(), "key": found.keys["admin"], "return": "/hub/-/keys"}
        entered = browser.post("/-/login", fields, Origin="https://models.example.org")
        assert entered.place == "/hub/-/keys"
        session = next(c for c in entered.cookies if c.startswith("freehold_session="))
        assert "Path=/hub/-/" in session
        assert "Secure" in session
        assert browser.get("/hub/-/keys").status == 200


def test_bytes_that_are_gone_are_a_failure_with_a_name_and_the_sheet_stays(own: Any) -> None:
    parts = own.house.parts
    keep(parts, "lab/gone", {"LICENSE": b"free", "model.safetensors": b"x" * 64}, model_facts={"format": "safetensors"})
    for entry in show_model(parts, own.house.caller, "lab/gone").manifest:
        parts.vault.remove(entry.sha256)
    browser = own.browser()
    assert browser.get("/-/models/lab/gone").status == 200
    for path in ("/-/models/lab/gone/-/license?file=LICENSE", "/-/models/lab/gone/-/tensors"):
        page = browser.get(path)
        assert page.status >= 400
        assert "<code>vault-missing</code>" in page.text
    part = browser.get("/-/models/lab/gone/-/tensors", HX_Target="tensor-list")
    assert part.text.lstrip().startswith("<p ")
    assert 'id="tensor-list"' in part.text


def test_a_binary_file_is_not_shown_as_a_text(own: Any) -> None:
    keep(own.house.parts, "lab/binary", {"LICENSE": b"\x00\x01\x02"})
    page = own.browser().get("/-/models/lab/binary/-/license?file=LICENSE")
    assert page.status == 400
    assert "is not a text" in page.text


def test_a_revision_of_which_nothing_was_recorded_still_has_a_sheet(own: Any) -> None:
    _record(own, "lab/plain", Manifest(()))
    browser = own.browser()
    assert "undeclared" in browser.get("/-/").text
    page = browser.get("/-/models/lab/plain")
    assert page.status == 200
    assert "nothing is known of this revision but its files" in page.text


def _record(home: Any, name: str, manifest: Manifest) -> None:
    """A revision in the catalog alone: no bytes, no facts, no license, no origin, no findings, no decision."""
    parts, now = home.house.parts, home.house.parts.clock()
    with parts.catalog.write() as tx:
        repo = repos.ensure_repo(tx, RepoId.parse(name), now)
        commit = CommitId("a" * 40)
        new = NewRevision(commit, revisions.CommitKind.FOREIGN, "b" * 40, manifest, "first", "somebody", now)
        revisions.add_revision(tx, repo, new, now)
        revisions.set_ref(tx, repo, "heads/main", commit, now)
