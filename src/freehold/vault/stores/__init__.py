"""Where a vault's bytes lie: one narrow interface, and a store for each kind of place."""

from freehold.vault.stores.local import LocalStore
from freehold.vault.stores.memory import MemoryStore
from freehold.vault.stores.store import BlobStore, Reading, StoredItem

__all__ = ["BlobStore", "LocalStore", "MemoryStore", "Reading", "StoredItem"]
