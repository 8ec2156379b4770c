-- Where bytes lie. Digests are text with their algorithm; times are UTC microseconds.
-- All of it but leases, damage and dates of verification can be rebuilt from the tables beside the payloads.
CREATE TABLE objects (
  id TEXT PRIMARY KEY,
  length BIGINT NOT NULL
) WITHOUT ROWID;

-- `name` is the digest of the payload. `epoch` is the collection epoch in which the container was born.
CREATE TABLE containers (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('loose', 'pack')),
  name TEXT NOT NULL UNIQUE,
  payload_length BIGINT NOT NULL,
  table_length BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('live', 'quarantined', 'tombstone')),
  epoch BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  verified_at BIGINT
);

CREATE INDEX containers_verified ON containers(verified_at);

CREATE TABLE locations (
  object_id TEXT NOT NULL REFERENCES objects(id),
  container_id INTEGER NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
  region TEXT NOT NULL CHECK (region IN ('payload', 'table')),
  "offset" BIGINT NOT NULL,
  stored_length BIGINT NOT NULL,
  encoding INTEGER NOT NULL,
  PRIMARY KEY (object_id, container_id, region)
) WITHOUT ROWID;

CREATE INDEX locations_container ON locations(container_id);

-- A blob and its manifest object; `segments` is the manifest unrolled, so that a range is one look-up.
CREATE TABLE files (
  sha256 TEXT PRIMARY KEY,
  size BIGINT NOT NULL,
  manifest TEXT NOT NULL REFERENCES objects(id)
) WITHOUT ROWID;

CREATE TABLE segments (
  sha256 TEXT NOT NULL REFERENCES files(sha256) ON DELETE CASCADE,
  start BIGINT NOT NULL,
  object_id TEXT NOT NULL REFERENCES objects(id),
  "offset" BIGINT NOT NULL,
  length BIGINT NOT NULL,
  PRIMARY KEY (sha256, start)
) WITHOUT ROWID;

CREATE INDEX segments_object ON segments(object_id);

CREATE TABLE damage (
  container_id INTEGER NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
  block INTEGER NOT NULL,
  reason TEXT NOT NULL,
  found_at BIGINT NOT NULL,
  PRIMARY KEY (container_id, block)
) WITHOUT ROWID;

CREATE TABLE leases (
  holder TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  until BIGINT NOT NULL,
  PRIMARY KEY (holder, sha256)
) WITHOUT ROWID;

CREATE INDEX leases_sha256 ON leases(sha256);

CREATE TABLE collection (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  epoch BIGINT NOT NULL
);

INSERT INTO collection (id, epoch) VALUES (1, 1);
