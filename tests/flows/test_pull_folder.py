"""Pulling a folder or a file of this machine: read once more when nothing changed, and never a mixture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.app import House, house
from freehold.errors import FreeholdError
from freehold.flows import events, models
from freehold.flows.pull import pull
from freehold.formats import git
from freehold.lab.models import make_model
from freehold.nouns.origin import Admission
from freehold.nouns.progress import Progress


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of more than the size from which files are large ones."""
    return make_model(tmp_path_factory.mktemp("lab") / "big", seed=3, size_mb=11, format="gguf").folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "my-model"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(str(tmp_path / "home")) as opened:
        yield opened


def test_a_folder_is_taken_in_with_git_ids_for_small_and_large_files(home: House, folder: Path) -> None:
    done = pull(home.parts, home.caller, str(folder))
    assert (str(done.id), done.admission, done.ref) == ("local/my-model", Admission.ADMITTED, "heads/main")
    view = models.show_model(home.parts, home.caller, "local/my-model")
    assert {e.path for e in view.manifest} == {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    for entry in view.manifest:
        data = (folder / entry.path).read_bytes()
        assert b"".join(home.parts.vault.read(entry.sha256)) == data
        assert entry.lfs == (entry.path.endswith(".gguf"))
        stored = git.lfs_pointer(entry.sha256.hex, entry.size) if entry.lfs else data
        assert entry.git_oid == git.blob_oid(stored)
    assert view.origins[0].locator == str(folder)


def test_the_same_folder_again_is_known_even_where_it_was_touched_or_moved(home: House, folder: Path, tmp_path: Path) -> None:
    first = pull(home.parts, home.caller, str(folder), name="me/mine")
    for file in folder.iterdir():
        file.touch()
    again = pull(home.parts, home.caller, str(folder.rename(tmp_path / "elsewhere")), name="me/mine")
    assert (again.already, again.commit, again.new_bytes) == (True, first.commit, 0)
    assert len(events.list_events(home.parts, home.caller)) == 1


def test_a_changed_folder_is_a_new_commit_that_shares_what_stayed(home: House, folder: Path) -> None:
    first = pull(home.parts, home.caller, str(folder))
    (folder / "NOTES.md").write_text("new\n")
    second = pull(home.parts, home.caller, str(folder))
    assert second.commit != first.commit
    assert second.new_bytes == 4
    assert models.show_model(home.parts, home.caller, "local/my-model", first.commit).manifest
    (folder / "NOTES.md").unlink()
    back = pull(home.parts, home.caller, str(folder))
    assert (back.already, back.commit, back.ref) == (True, first.commit, "heads/main")
    assert models.show_model(home.parts, home.caller, "local/my-model").revision.commit.sha == first.commit


def test_a_single_file_is_a_model(home: House, folder: Path) -> None:
    (weights,) = folder.glob("*.gguf")
    done = pull(home.parts, home.caller, str(weights), name="me/one")
    assert (done.files, done.bytes) == (1, weights.stat().st_size)


def test_what_is_no_model_leaves_no_byte_and_says_so(home: House, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no model\n")
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, str(tmp_path / "notes"))
    assert caught.value.code == "study-not-a-model"
    assert list(home.parts.vault.digests()) == []
    assert models.list_models(home.parts, home.caller) == []


def test_a_file_that_is_kept_for_another_model_survives_the_refusal_of_this_one(
    home: House, folder: Path, tmp_path: Path
) -> None:
    pull(home.parts, home.caller, str(folder))
    (tmp_path / "notes").mkdir()
    shutil.copy(folder / "README.md", tmp_path / "notes")
    with pytest.raises(FreeholdError):
        pull(home.parts, home.caller, str(tmp_path / "notes"))
    entry = models.show_model(home.parts, home.caller, "local/my-model").manifest.find("README.md")
    assert home.parts.vault.has(entry.sha256)


def test_a_file_that_changes_while_it_is_copied_is_refused(home: House, folder: Path) -> None:
    (weights,) = folder.glob("*.gguf")

    def change(progress: Progress) -> None:
        if progress.stage == "copy" and not changed:
            changed.append(True)
            with weights.open("r+b") as file:
                file.seek(weights.stat().st_size - 100)
                file.write(b"?" * 100)

    changed: list[bool] = []
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, str(folder), listener=change)
    assert changed
    assert caught.value.code in ("keep-hash-mismatch", "keep-changed")
    assert models.list_models(home.parts, home.caller) == []


def test_a_pickle_is_taken_in_with_a_warning_that_says_why(home: House, folder: Path) -> None:
    (folder / "extra.pkl").write_bytes(b"\x80\x04N.")
    done = pull(home.parts, home.caller, str(folder))
    (finding,) = [f for f in done.findings if f.kind == "pickle-file"]
    assert (done.admission, finding.severity) == (Admission.ADMITTED, "warning")
    assert "extra.pkl" in finding.detail["message"]


def test_a_full_disk_is_said_before_anything_is_copied(home: House, folder: Path) -> None:
    home.parts.vault.reserve_bytes = 1 << 60
    with pytest.raises(FreeholdError) as caught:
        pull(home.parts, home.caller, str(folder))
    assert caught.value.code == "vault-disk-full"
    home.parts.vault.reserve_bytes = 0
    assert not pull(home.parts, home.caller, str(folder)).already


def test_a_removed_model_can_be_taken_in_again(home: House, folder: Path) -> None:
    first = pull(home.parts, home.caller, str(folder))
    models.remove_model(home.parts, home.caller, "local/my-model")
    again = pull(home.parts, home.caller, str(folder))
    assert (again.already, again.commit, again.new_bytes) == (False, first.commit, first.bytes)
