"""Names and facts: repositories, revisions, refs, origins, lineage, findings, admissions, events.

Functions over a catalog transaction that a flow opened. Bytes are the vault's: neither knows the other.
"""
