"""The vault keeps bytes by digest: published once, whole, and verified; it knows no names."""

from freehold.vault.part import Part
from freehold.vault.publication import Stored
from freehold.vault.reading import VaultFile
from freehold.vault.recovery import RebuildReport, SweepReport
from freehold.vault.scrub import BadBlock, Damage, VerifyReport
from freehold.vault.stores import BlobStore, LocalStore, MemoryStore
from freehold.vault.vault import Stats, Vault

__all__ = [
    "BadBlock",
    "BlobStore",
    "Damage",
    "LocalStore",
    "MemoryStore",
    "Part",
    "RebuildReport",
    "Stats",
    "Stored",
    "SweepReport",
    "Vault",
    "VaultFile",
    "VerifyReport",
]
