-- What was used and what it cost. Times are UTC microseconds; money is integer micro-units of a currency.
-- Every movement of money is a transfer of two or more entries that add up to zero; a balance is the sum of its entries.

-- `floor` is the lowest balance allowed: 0 for prepaid, below it for a credit line, NULL for none (a tab, billed later).
CREATE TABLE accounts (
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('principal', 'reserved', 'revenue', 'funding')),
  name TEXT NOT NULL,
  currency TEXT NOT NULL,
  balance BIGINT NOT NULL DEFAULT 0,
  floor BIGINT,
  created_at BIGINT NOT NULL,
  UNIQUE (kind, name, currency),
  CHECK (floor IS NULL OR balance >= floor)
);

-- An admitted request, with the prices agreed at its start. The last noted counts bound what a dead process may charge.
CREATE TABLE reservations (
  id TEXT PRIMARY KEY,
  at BIGINT NOT NULL,
  owner TEXT NOT NULL,
  principal TEXT NOT NULL,
  model TEXT NOT NULL,
  engine TEXT NOT NULL,
  currency TEXT NOT NULL,
  amount BIGINT NOT NULL CHECK (amount >= 0),
  prompt_price BIGINT NOT NULL CHECK (prompt_price >= 0),
  generated_price BIGINT NOT NULL CHECK (generated_price >= 0),
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'settled', 'released', 'interrupted')),
  prompt INTEGER NOT NULL DEFAULT 0,
  cached INTEGER NOT NULL DEFAULT 0,
  generated INTEGER NOT NULL DEFAULT 0,
  delivered INTEGER NOT NULL DEFAULT 0,
  reported INTEGER NOT NULL DEFAULT 0,
  estimated INTEGER NOT NULL DEFAULT 0,
  first_token_us BIGINT,
  noted_at BIGINT
) WITHOUT ROWID;

CREATE INDEX reservations_open ON reservations(owner) WHERE state = 'open';

CREATE TABLE entries (
  id INTEGER PRIMARY KEY,
  transfer TEXT NOT NULL,
  at BIGINT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('credit', 'reserve', 'settle', 'release', 'interrupt')),
  account_id INTEGER NOT NULL REFERENCES accounts(id),
  amount BIGINT NOT NULL CHECK (amount <> 0),
  reservation TEXT REFERENCES reservations(id),
  memo TEXT NOT NULL DEFAULT ''
);

CREATE INDEX entries_account ON entries(account_id);

CREATE INDEX entries_reservation ON entries(reservation) WHERE reservation IS NOT NULL;

-- One row per admitted request, never changed.
CREATE TABLE usage (
  id TEXT PRIMARY KEY,
  reservation TEXT NOT NULL UNIQUE REFERENCES reservations(id),
  at BIGINT NOT NULL,
  finished_at BIGINT NOT NULL,
  principal TEXT NOT NULL,
  model TEXT NOT NULL,
  engine TEXT NOT NULL,
  prompt INTEGER NOT NULL CHECK (prompt >= 0),
  cached INTEGER NOT NULL CHECK (cached >= 0),
  generated INTEGER NOT NULL CHECK (generated >= 0),
  delivered INTEGER NOT NULL CHECK (delivered >= 0),
  reported INTEGER NOT NULL,
  estimated INTEGER NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('settled', 'released', 'interrupted')),
  reason TEXT NOT NULL,
  first_token_us BIGINT,
  cost BIGINT NOT NULL CHECK (cost >= 0),
  currency TEXT NOT NULL,
  CHECK (delivered <= generated)
) WITHOUT ROWID;

CREATE INDEX usage_at ON usage(at);

-- The balance follows the entries, so that the CHECK on accounts refuses an overdraft whoever writes it.
CREATE TRIGGER entries_move_balance AFTER INSERT ON entries
BEGIN
  UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.account_id;
END;

CREATE TRIGGER entries_keep_rows BEFORE DELETE ON entries
BEGIN
  SELECT RAISE(ABORT, 'entries are append-only');
END;

CREATE TRIGGER entries_keep_fields BEFORE UPDATE ON entries
BEGIN
  SELECT RAISE(ABORT, 'entries are append-only');
END;

CREATE TRIGGER usage_keep_rows BEFORE DELETE ON usage
BEGIN
  SELECT RAISE(ABORT, 'usage is append-only');
END;

CREATE TRIGGER usage_keep_fields BEFORE UPDATE ON usage
BEGIN
  SELECT RAISE(ABORT, 'usage is append-only');
END;

CREATE TRIGGER reservations_keep_rows BEFORE DELETE ON reservations
BEGIN
  SELECT RAISE(ABORT, 'reservations are append-only');
END;

-- What was agreed stays; a closed reservation stays closed.
CREATE TRIGGER reservations_keep_terms BEFORE UPDATE ON reservations
WHEN OLD.state <> 'open' OR (OLD.id, OLD.at, OLD.owner, OLD.principal, OLD.model, OLD.engine, OLD.currency, OLD.amount, OLD.prompt_price, OLD.generated_price)
  IS NOT (NEW.id, NEW.at, NEW.owner, NEW.principal, NEW.model, NEW.engine, NEW.currency, NEW.amount, NEW.prompt_price, NEW.generated_price)
BEGIN
  SELECT RAISE(ABORT, 'the terms of a reservation are append-only');
END;
