"""The shelf: listings that were just read, kept in process until anybody commits to the catalog.

Why: a client that takes a model asks for each file by name, twice; reading four rows for each costs more than all else. What
was read stays valid while the catalog's data version stands, so any commit by any process - a ref that moves, a model that is
quarantined or made private - empties the shelf; no time-out decides what is true. Who asks and what they may see is decided
anew for every request: the shelf holds facts, never permissions.

It is used from one thread, the event loop's, which it may not block: it answers from memory or not at all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from freehold.catalog.repos import Repo
from freehold.catalog.revisions import Revision
from freehold.flows.parts import Parts
from freehold.nouns.files import FileEntry
from freehold.nouns.ids import RepoId
from freehold.nouns.origin import Admission

#: Files of all listings together; some twenty megabytes.
MOST_FILES = 50_000
#: A longer listing is not shelved: its files are asked for one by one.
LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Listing:
    """A revision as `name` meant it: who may read it is not decided here."""

    repo: Repo
    revision: Revision
    state: Admission
    reason: str
    files: Mapping[str, FileEntry]


class Shelf:
    """One for each server."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._version: int | None = None
        self._listings: OrderedDict[tuple[str, str], Listing] = OrderedDict()
        self._long: set[tuple[str, str]] = set()
        self._files = 0

    def version(self) -> int:
        """To be asked before something is read that is to be shelved; empties the shelf if the catalog changed."""
        now = self._parts.catalog.data_version()
        if now != self._version:
            self._listings.clear()
            self._long.clear()
            self._files = 0
            self._version = now
        return now

    def listing(self, repo_id: RepoId, name: str) -> Listing | None:
        """What `name` means in the repository, if that is known."""
        self.version()
        found = self._listings.get((repo_id.key, name))
        if found is not None:
            self._listings.move_to_end((repo_id.key, name))
        return found

    def is_long(self, repo_id: RepoId, name: str) -> bool:
        """Whether the listing was found too long to be shelved."""
        return (repo_id.key, name) in self._long

    def put_listing(self, version: int, repo_id: RepoId, name: str, listing: Listing) -> None:
        """Shelve what was read after `version` was asked; dropped if somebody committed in between."""
        key = (repo_id.key, name)
        if version != self.version() or key in self._listings:
            return
        if len(listing.files) > LONGEST:
            self._long.add(key)
            return
        self._listings[key] = listing
        self._files += len(listing.files)
        while self._files > MOST_FILES:
            self._files -= len(self._listings.popitem(last=False)[1].files)
