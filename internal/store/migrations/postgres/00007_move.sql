-- +goose Up

-- Where a resource went: a token that names it by the ID from before counts on,
-- for as long as tokens live and nobody else has that ID.
CREATE TABLE moved (
	tenant  TEXT COLLATE "C" NOT NULL,
	old_key TEXT COLLATE "C" NOT NULL,
	new_id  TEXT COLLATE "C" NOT NULL,
	at_ms   BIGINT NOT NULL,
	PRIMARY KEY (tenant, old_key)
);
CREATE INDEX moved_at ON moved (at_ms);

-- User-assigned identities that were deleted and can be recovered. They are no
-- principals: nothing finds them by their ids but who recovers them. roles are
-- the role assignments that they had, in JSON.
CREATE TABLE deleted_identity (
	tenant     TEXT COLLATE "C" NOT NULL,
	principal  TEXT COLLATE "C" NOT NULL,
	key        TEXT COLLATE "C" NOT NULL,
	name_key   TEXT COLLATE "C" NOT NULL,
	resource   BYTEA NOT NULL,
	identity   BYTEA NOT NULL,
	roles      BYTEA NOT NULL,
	deleted_by TEXT COLLATE "C" NOT NULL,
	deleted_ms BIGINT NOT NULL,
	purge_ms   BIGINT NOT NULL,
	PRIMARY KEY (tenant, principal)
);
CREATE UNIQUE INDEX deleted_identity_key ON deleted_identity (tenant, key, principal);
CREATE INDEX deleted_identity_name ON deleted_identity (tenant, name_key, key);
CREATE INDEX deleted_identity_purge ON deleted_identity (purge_ms);
