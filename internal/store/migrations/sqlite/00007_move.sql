-- +goose Up

-- Where a resource went: a token that names it by the ID from before counts on,
-- for as long as tokens live and nobody else has that ID.
CREATE TABLE moved (
	tenant  TEXT    NOT NULL,
	old_key TEXT    NOT NULL,
	new_id  TEXT    NOT NULL,
	at_ms   INTEGER NOT NULL,
	PRIMARY KEY (tenant, old_key)
) STRICT;
CREATE INDEX moved_at ON moved (at_ms);

-- User-assigned identities that were deleted and can be recovered. They are no
-- principals: nothing finds them by their ids but who recovers them. roles are
-- the role assignments that they had, in JSON.
CREATE TABLE deleted_identity (
	tenant     TEXT    NOT NULL,
	principal  TEXT    NOT NULL,
	key        TEXT    NOT NULL,
	name_key   TEXT    NOT NULL,
	resource   BLOB NOT NULL,
	identity   BLOB NOT NULL,
	roles      BLOB NOT NULL,
	deleted_by TEXT    NOT NULL,
	deleted_ms INTEGER NOT NULL,
	purge_ms   INTEGER NOT NULL,
	PRIMARY KEY (tenant, principal)
) STRICT;
CREATE UNIQUE INDEX deleted_identity_key ON deleted_identity (tenant, key, principal);
CREATE INDEX deleted_identity_name ON deleted_identity (tenant, name_key, key);
CREATE INDEX deleted_identity_purge ON deleted_identity (purge_ms);
