-- Names and facts. Times are UTC microseconds; *_json columns hold canonical JSON.
CREATE TABLE repos (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  namespace TEXT,
  name TEXT NOT NULL,
  key TEXT NOT NULL UNIQUE,
  private INTEGER NOT NULL DEFAULT 0,
  gated TEXT NOT NULL DEFAULT '',
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE TABLE aliases (
  key TEXT PRIMARY KEY,
  repo_id INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE
);

CREATE TABLE trees (
  id INTEGER PRIMARY KEY,
  repo_id INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
  oid TEXT NOT NULL,
  UNIQUE (repo_id, oid)
);

CREATE TABLE entries (
  tree_id INTEGER NOT NULL REFERENCES trees(id) ON DELETE CASCADE,
  path TEXT NOT NULL,
  mode INTEGER NOT NULL,
  git_oid TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size BIGINT NOT NULL,
  lfs INTEGER NOT NULL,
  xet_hash TEXT,
  PRIMARY KEY (tree_id, path)
) WITHOUT ROWID;

CREATE INDEX entries_sha256 ON entries(sha256);

CREATE TABLE commits (
  id INTEGER PRIMARY KEY,
  repo_id INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
  sha TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('native', 'foreign')),
  raw BLOB,
  tree_id INTEGER NOT NULL REFERENCES trees(id),
  title TEXT NOT NULL,
  author TEXT NOT NULL,
  authored_at BIGINT NOT NULL,
  manifest_sha256 TEXT,
  added_at BIGINT NOT NULL,
  UNIQUE (repo_id, sha)
);

CREATE TABLE refs (
  repo_id INTEGER NOT NULL REFERENCES repos(id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  sha TEXT NOT NULL,
  version INTEGER NOT NULL,
  moved_at BIGINT NOT NULL,
  PRIMARY KEY (repo_id, name)
) WITHOUT ROWID;

CREATE TABLE origins (
  id INTEGER PRIMARY KEY,
  commit_id INTEGER NOT NULL REFERENCES commits(id) ON DELETE CASCADE,
  source TEXT NOT NULL,
  locator TEXT NOT NULL,
  upstream_etag TEXT,
  taken_at BIGINT NOT NULL,
  evidence TEXT,
  detail_json TEXT NOT NULL
);

CREATE TABLE lineage (
  id INTEGER PRIMARY KEY,
  child_commit_id INTEGER NOT NULL REFERENCES commits(id) ON DELETE CASCADE,
  parent TEXT NOT NULL,
  relation TEXT NOT NULL,
  evidence TEXT NOT NULL,
  score REAL,
  method TEXT NOT NULL,
  at BIGINT NOT NULL,
  UNIQUE (child_commit_id, parent, relation, evidence, method)
);

CREATE TABLE findings (
  id INTEGER PRIMARY KEY,
  subject TEXT NOT NULL,
  kind TEXT NOT NULL,
  severity TEXT NOT NULL,
  method TEXT NOT NULL,
  detail_json TEXT NOT NULL,
  at BIGINT NOT NULL,
  UNIQUE (subject, kind, method, detail_json)
);

CREATE TABLE admissions (
  id INTEGER PRIMARY KEY,
  commit_id INTEGER NOT NULL REFERENCES commits(id) ON DELETE CASCADE,
  state TEXT NOT NULL CHECK (state IN ('admitted', 'quarantined', 'refused')),
  decided_by TEXT NOT NULL,
  reason TEXT NOT NULL,
  at BIGINT NOT NULL
);

CREATE INDEX admissions_commit ON admissions(commit_id, id);

CREATE TABLE events (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  payload_json TEXT NOT NULL,
  prev_hash TEXT NOT NULL,
  hash TEXT NOT NULL
);

CREATE TRIGGER events_keep_rows BEFORE DELETE ON events
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TRIGGER events_keep_fields BEFORE UPDATE ON events
BEGIN
  SELECT RAISE(ABORT, 'events are append-only');
END;

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  identity TEXT NOT NULL,
  params_json TEXT NOT NULL,
  state TEXT NOT NULL,
  owner TEXT,
  lease_until BIGINT NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  progress_json TEXT NOT NULL DEFAULT '{}',
  checkpoint_json TEXT NOT NULL DEFAULT '{}',
  parent TEXT,
  priority INTEGER NOT NULL DEFAULT 0,
  team TEXT,
  error_json TEXT,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

CREATE INDEX jobs_open ON jobs(state, kind, identity);

CREATE TABLE principals (
  id INTEGER PRIMARY KEY,
  uuid TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL CHECK (kind IN ('user', 'org', 'service')),
  name TEXT NOT NULL UNIQUE,
  created_at BIGINT NOT NULL
);

CREATE TABLE keys (
  public_id TEXT PRIMARY KEY,
  secret_sha256 TEXT NOT NULL,
  principal_id INTEGER NOT NULL REFERENCES principals(id),
  name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('api', 'session')),
  scopes TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  last_used_at BIGINT
);
