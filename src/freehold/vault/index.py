"""vault.db in verbs: every SQL statement of the vault stands here, each function takes an open transaction.

The index answers where bytes lie in one look-up; what it knows of a container comes from the container's own table, so that it
can be rebuilt. It reads and writes no blobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, bindparam, text

from freehold.nouns.digest import Digest
from freehold.vault.sidecar import Table

#: Statements are parsed once.
sql = cache(text)

LIVE, QUARANTINED, TOMBSTONE = "live", "quarantined", "tombstone"


@dataclass(frozen=True, slots=True)
class Container:
    """One row of containers; `sha256` is the payload's digest, `verified_at` UTC microseconds or None for never."""

    id: int
    kind: str
    sha256: Digest
    payload_length: int
    state: str
    verified_at: int | None

    @property
    def payload_key(self) -> str:
        return payload_key(self.sha256)

    @property
    def table_key(self) -> str:
        return table_key(self.sha256)


@dataclass(frozen=True, slots=True)
class Placed:
    """A run of a file: `length` bytes from `start` are those of an object from `offset`, which lies at `at` of the payload."""

    start: int
    object_id: Digest
    offset: int
    length: int
    at: int
    encoding: int
    container: Container


def payload_key(sha256: Digest) -> str:
    """The store key of a loose payload."""
    return f"loose/{sha256.hex[:2]}/{sha256.hex}"


def table_key(sha256: Digest) -> str:
    """The store key of its sidecar."""
    return f"{payload_key(sha256)}.table"


def find_size(tx: Connection, sha256: Digest) -> int | None:
    """Size of the file, or None if it is not indexed."""
    row = tx.execute(sql("SELECT size FROM files WHERE sha256 = :sha256"), {"sha256": str(sha256)}).first()
    return None if row is None else int(row.size)


def locate(tx: Connection, sha256: Digest) -> tuple[int, list[Placed]] | None:
    """Size and runs of the file in order, a live container before a quarantined one; None unless all of it is somewhere."""
    rows = tx.execute(
        sql(
            'SELECT f.size, s.start, s.object_id, s."offset", s.length, l."offset" AS at, l.encoding, '
            "c.id, c.kind, c.name, c.payload_length, c.state, c.verified_at "
            "FROM files f JOIN segments s ON s.sha256 = f.sha256 "
            "JOIN locations l ON l.object_id = s.object_id AND l.region = 'payload' "
            "JOIN containers c ON c.id = l.container_id AND c.state <> 'tombstone' "
            "WHERE f.sha256 = :sha256 ORDER BY s.start, c.state"
        ),
        {"sha256": str(sha256)},
    )
    placed: dict[int, Placed] = {}
    size = -1
    for row in rows:
        container = Container(row.id, row.kind, Digest.parse(row.name), row.payload_length, row.state, row.verified_at)
        run = Placed(row.start, Digest.parse(row.object_id), row.offset, row.length, row.at, row.encoding, container)
        placed.setdefault(row.start, run)
        size = row.size
    whole = sum(run.length for run in placed.values()) == size
    return (size, list(placed.values())) if whole else None


def locate_object(tx: Connection, id_: Digest) -> Placed | None:
    """An object as one run from its start, in a live container if there is one."""
    row = tx.execute(
        sql(
            'SELECT l."offset" AS at, l.encoding, o.length, c.id, c.kind, c.name, c.payload_length, c.state, c.verified_at '
            "FROM locations l JOIN objects o ON o.id = l.object_id JOIN containers c ON c.id = l.container_id "
            "WHERE l.object_id = :id AND l.region = 'payload' AND c.state <> 'tombstone' ORDER BY c.state LIMIT 1"
        ),
        {"id": str(id_)},
    ).first()
    if row is None:
        return None
    container = Container(row.id, row.kind, Digest.parse(row.name), row.payload_length, row.state, row.verified_at)
    return Placed(0, id_, 0, row.length, row.at, row.encoding, container)


def find_container(tx: Connection, sha256: Digest) -> Container | None:
    """The loose container of this payload, tombstones included."""
    row = tx.execute(sql("SELECT * FROM containers WHERE name = :name"), {"name": str(sha256)}).first()
    return None if row is None else Container(row.id, row.kind, sha256, row.payload_length, row.state, row.verified_at)


def containers(tx: Connection, *states: str) -> list[Container]:
    """All containers in one of `states`, the longest unverified first."""
    query = sql("SELECT * FROM containers WHERE state IN :states ORDER BY verified_at IS NOT NULL, verified_at, name")
    rows = tx.execute(query.bindparams(bindparam("states", expanding=True)), {"states": states})
    return [Container(r.id, r.kind, Digest.parse(r.name), r.payload_length, r.state, r.verified_at) for r in rows]


def insert(tx: Connection, table: Table, table_length: int, *, now: int, verified_at: int | None) -> None:
    """Index a loose container and its file, in whatever state its row was: this is what makes a blob visible."""
    epoch = tx.execute(sql("SELECT epoch FROM collection")).scalar_one()
    row = {
        "name": str(table.payload_sha256),
        "payload": table.payload_length,
        "table": table_length,
        "epoch": epoch,
        "now": now,
        "verified": verified_at,
    }
    tx.execute(
        sql(
            "INSERT INTO containers (kind, name, payload_length, table_length, state, epoch, created_at, verified_at) "
            "VALUES ('loose', :name, :payload, :table, 'live', :epoch, :now, :verified) ON CONFLICT (name) DO UPDATE SET "
            "payload_length = excluded.payload_length, table_length = excluded.table_length, state = 'live', "
            "epoch = excluded.epoch, verified_at = excluded.verified_at"
        ),
        row,
    )
    container = tx.execute(sql("SELECT id FROM containers WHERE name = :name"), row).scalar_one()
    tx.execute(sql("DELETE FROM damage WHERE container_id = :id"), {"id": container})
    for entry in table.objects:
        _place(tx, entry.id, entry.plain_length, container, "payload", entry.offset, entry.stored_length, entry.encoding)
    for file, offset in zip(table.files, table.manifest_offsets(), strict=True):
        length = len(file.encode())
        _place(tx, file.id, length, container, "table", offset, length, 0)
        key = {"sha256": str(file.sha256), "size": file.size, "manifest": str(file.id)}
        tx.execute(
            sql("INSERT INTO files (sha256, size, manifest) VALUES (:sha256, :size, :manifest) ON CONFLICT DO NOTHING"), key
        )
        start = 0
        for segment in file.segments:
            values = {
                "sha256": str(file.sha256),
                "start": start,
                "object": str(segment.object_id),
                "offset": segment.offset,
                "length": segment.length,
            }
            tx.execute(
                sql(
                    'INSERT INTO segments (sha256, start, object_id, "offset", length) '
                    "VALUES (:sha256, :start, :object, :offset, :length) ON CONFLICT DO NOTHING"
                ),
                values,
            )
            start += segment.length


def _place(
    tx: Connection, id_: Digest, length: int, container: int, region: str, offset: int, stored: int, encoding: int
) -> None:
    values = {
        "id": str(id_),
        "length": length,
        "container": container,
        "region": region,
        "offset": offset,
        "stored": stored,
        "encoding": encoding,
    }
    tx.execute(sql("INSERT INTO objects (id, length) VALUES (:id, :length) ON CONFLICT DO NOTHING"), values)
    tx.execute(
        sql(
            'INSERT INTO locations (object_id, container_id, region, "offset", stored_length, encoding) '
            "VALUES (:id, :container, :region, :offset, :stored, :encoding) ON CONFLICT DO NOTHING"
        ),
        values,
    )


def mark_verified(tx: Connection, container: Container, now: int) -> None:
    """The whole container was found good: an earlier quarantine ends."""
    tx.execute(
        sql("UPDATE containers SET verified_at = :now, state = 'live' WHERE id = :id AND state <> 'tombstone'"),
        {"now": now, "id": container.id},
    )
    tx.execute(sql("DELETE FROM damage WHERE container_id = :id"), {"id": container.id})


def mark_damaged(tx: Connection, container: Container, blocks: Iterable[tuple[int, str]], now: int) -> None:
    """Quarantine the container and note each bad block (-1: all of it) with a reason."""
    tx.execute(sql("UPDATE containers SET state = 'quarantined' WHERE id = :id AND state <> 'tombstone'"), {"id": container.id})
    tx.execute(sql("DELETE FROM damage WHERE container_id = :id"), {"id": container.id})
    for block, reason in blocks:
        values = {"id": container.id, "block": block, "reason": reason, "now": now}
        tx.execute(sql("INSERT INTO damage (container_id, block, reason, found_at) VALUES (:id, :block, :reason, :now)"), values)


def bury(tx: Connection, container: Container) -> None:
    """Take the files of a loose container out of sight and leave a tombstone."""
    tx.execute(sql("UPDATE containers SET state = 'tombstone' WHERE id = :id"), {"id": container.id})
    tx.execute(sql("DELETE FROM files WHERE sha256 = :sha256"), {"sha256": str(container.sha256)})


def forget(tx: Connection, container: Container) -> None:
    """Drop a tombstone and the objects that lay nowhere else."""
    held = [
        r.object_id for r in tx.execute(sql("SELECT object_id FROM locations WHERE container_id = :id"), {"id": container.id})
    ]
    tx.execute(sql("DELETE FROM containers WHERE id = :id AND state = 'tombstone'"), {"id": container.id})
    for id_ in held:
        tx.execute(
            sql(
                "DELETE FROM objects WHERE id = :id AND NOT EXISTS (SELECT 1 FROM locations WHERE object_id = :id) "
                "AND NOT EXISTS (SELECT 1 FROM segments WHERE object_id = :id) "
                "AND NOT EXISTS (SELECT 1 FROM files WHERE manifest = :id)"
            ),
            {"id": id_},
        )


def lease(tx: Connection, holder: str, digests: Iterable[Digest], until: int) -> None:
    rows = [{"holder": holder, "sha256": str(d), "until": until} for d in digests]
    if rows:
        tx.execute(
            sql(
                "INSERT INTO leases (holder, sha256, until) VALUES (:holder, :sha256, :until) "
                "ON CONFLICT (holder, sha256) DO UPDATE SET until = excluded.until"
            ),
            rows,
        )


def release(tx: Connection, holder: str, digests: Sequence[Digest] | None) -> None:
    if digests is None:
        tx.execute(sql("DELETE FROM leases WHERE holder = :holder"), {"holder": holder})
    elif digests:
        rows = [{"holder": holder, "sha256": str(d)} for d in digests]
        tx.execute(sql("DELETE FROM leases WHERE holder = :holder AND sha256 = :sha256"), rows)


def lease_holders(tx: Connection, sha256: Digest, now: int) -> list[str]:
    """Who holds an unexpired lease on the file, sorted."""
    rows = tx.execute(
        sql("SELECT holder FROM leases WHERE sha256 = :sha256 AND until > :now ORDER BY holder"),
        {"sha256": str(sha256), "now": now},
    )
    return [r.holder for r in rows]


def drop_expired_leases(tx: Connection, now: int) -> None:
    tx.execute(sql("DELETE FROM leases WHERE until <= :now"), {"now": now})


def digests_after(tx: Connection, after: str, limit: int) -> list[Digest]:
    """Up to `limit` files with a digest above `after`, in order: a page."""
    rows = tx.execute(
        sql("SELECT sha256 FROM files WHERE sha256 > :after ORDER BY sha256 LIMIT :limit"), {"after": after, "limit": limit}
    )
    return [Digest.parse(r.sha256) for r in rows]


def totals(tx: Connection) -> dict[str, int]:
    """Counts and bytes, as `Stats` names them."""
    row = tx.execute(
        sql(
            "SELECT (SELECT COUNT(*) FROM files) AS files, (SELECT COALESCE(SUM(size), 0) FROM files) AS plain_bytes, "
            "(SELECT COUNT(*) FROM objects) AS objects, COUNT(*) AS containers, "
            "COALESCE(SUM(payload_length + table_length), 0) AS stored_bytes, "
            "COALESCE(SUM(state = 'quarantined'), 0) AS quarantined FROM containers WHERE state <> 'tombstone'"
        )
    ).mappings()
    return {name: int(value) for name, value in row.one().items()}


def clear(tx: Connection) -> None:
    """Empty the index, leases and the epoch apart."""
    for name in ("segments", "files", "damage", "locations", "containers", "objects"):
        tx.execute(sql(f"DELETE FROM {name}"))
