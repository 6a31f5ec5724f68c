-- The same tables as in ../postgres; a change goes into both. Times are
-- milliseconds since 1970 in UTC, 0 for "never"; columns ending in _key are
-- lower case and are what is compared; their neighbours keep the author's case.

-- +goose Up

CREATE TABLE tenant (
	id         TEXT    NOT NULL,
	name       TEXT    NOT NULL,
	created_ms INTEGER NOT NULL,
	revision   INTEGER NOT NULL,
	PRIMARY KEY (id)
) STRICT;

CREATE TABLE change (
	tenant   TEXT    NOT NULL,
	revision INTEGER NOT NULL,
	kind     TEXT    NOT NULL,
	key      TEXT    NOT NULL,
	PRIMARY KEY (tenant, revision, kind, key)
) STRICT;

CREATE TABLE resource (
	tenant     TEXT    NOT NULL,
	key        TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	type       TEXT    NOT NULL,
	type_key   TEXT    NOT NULL,
	uid        TEXT    NOT NULL,
	body       BLOB    NOT NULL,
	bound_to   TEXT    NOT NULL,
	bound_key  TEXT    NOT NULL,
	etag       INTEGER NOT NULL,
	created_ms INTEGER NOT NULL,
	updated_ms INTEGER NOT NULL,
	created_by TEXT    NOT NULL,
	updated_by TEXT    NOT NULL,
	PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX resource_type ON resource (tenant, type_key, key);
CREATE INDEX resource_bound ON resource (tenant, bound_key) WHERE bound_key <> '';
CREATE INDEX resource_uid ON resource (tenant, uid);

CREATE TABLE principal (
	tenant        TEXT    NOT NULL,
	id            TEXT    NOT NULL,
	client        TEXT    NOT NULL,
	kind          TEXT    NOT NULL,
	name          TEXT    NOT NULL,
	resource      TEXT    NOT NULL,
	resource_key  TEXT    NOT NULL,
	system        INTEGER NOT NULL,
	enabled       INTEGER NOT NULL,
	valid_from_ms INTEGER NOT NULL,
	created_ms    INTEGER NOT NULL,
	PRIMARY KEY (tenant, id)
) STRICT;
CREATE UNIQUE INDEX principal_resource ON principal (tenant, resource_key) WHERE resource_key <> '';

CREATE TABLE attachment (
	tenant       TEXT NOT NULL,
	resource_key TEXT NOT NULL,
	identity_key TEXT NOT NULL,
	PRIMARY KEY (tenant, resource_key, identity_key)
) STRICT;
CREATE INDEX attachment_identity ON attachment (tenant, identity_key, resource_key);

CREATE TABLE assignment (
	tenant         TEXT    NOT NULL,
	key            TEXT    NOT NULL,
	id             TEXT    NOT NULL,
	role           TEXT    NOT NULL,
	principal      TEXT    NOT NULL,
	principal_type TEXT    NOT NULL,
	scope          TEXT    NOT NULL,
	scope_key      TEXT    NOT NULL,
	description    TEXT    NOT NULL,
	created_ms     INTEGER NOT NULL,
	updated_ms     INTEGER NOT NULL,
	created_by     TEXT    NOT NULL,
	updated_by     TEXT    NOT NULL,
	PRIMARY KEY (tenant, key)
) STRICT;
CREATE UNIQUE INDEX assignment_once ON assignment (tenant, scope_key, role, principal);
CREATE INDEX assignment_scope ON assignment (tenant, scope_key, key);
CREATE INDEX assignment_principal ON assignment (tenant, principal, key);

-- A name is unique in the installation, so here the tenant is no part of the key.
CREATE TABLE claimed_name (
	kind         TEXT NOT NULL,
	name         TEXT NOT NULL,
	tenant       TEXT NOT NULL,
	resource_key TEXT NOT NULL,
	PRIMARY KEY (kind, name)
) STRICT;
CREATE INDEX claimed_name_resource ON claimed_name (tenant, resource_key);

CREATE TABLE api (
	tenant        TEXT    NOT NULL,
	audience_key  TEXT    NOT NULL,
	audience      TEXT    NOT NULL,
	client        TEXT    NOT NULL,
	token_version INTEGER NOT NULL,
	resource      TEXT    NOT NULL,
	resource_key  TEXT    NOT NULL,
	PRIMARY KEY (tenant, audience_key)
) STRICT;
CREATE INDEX api_resource ON api (tenant, resource_key);

-- latest is the number of the newest version; 0 marks a name that a
-- transaction holds before the first version is there, and is never committed.
-- The reference keeps a vault that holds secrets from being deleted under them.
CREATE TABLE secret (
	tenant     TEXT    NOT NULL,
	vault_key  TEXT    NOT NULL,
	name_key   TEXT    NOT NULL,
	name       TEXT    NOT NULL,
	latest     INTEGER NOT NULL,
	deleted_ms INTEGER NOT NULL,
	purge_ms   INTEGER NOT NULL,
	PRIMARY KEY (tenant, vault_key, name_key),
	FOREIGN KEY (tenant, vault_key) REFERENCES resource (tenant, key)
) STRICT;
CREATE INDEX secret_purge ON secret (purge_ms) WHERE purge_ms > 0;

CREATE TABLE secret_version (
	tenant        TEXT    NOT NULL,
	vault_key     TEXT    NOT NULL,
	name_key      TEXT    NOT NULL,
	version       TEXT    NOT NULL,
	number        INTEGER NOT NULL,
	sealed        BLOB    NOT NULL,
	content_type  TEXT    NOT NULL,
	tags          TEXT    NOT NULL,
	enabled       INTEGER NOT NULL,
	not_before_ms INTEGER NOT NULL,
	expires_ms    INTEGER NOT NULL,
	created_ms    INTEGER NOT NULL,
	updated_ms    INTEGER NOT NULL,
	PRIMARY KEY (tenant, vault_key, name_key, version),
	FOREIGN KEY (tenant, vault_key, name_key) REFERENCES secret (tenant, vault_key, name_key) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX secret_version_number ON secret_version (tenant, vault_key, name_key, number);

CREATE TABLE ring_key (
	tenant        TEXT    NOT NULL,
	kind          TEXT    NOT NULL,
	number        INTEGER NOT NULL,
	id            TEXT    NOT NULL,
	sealed        BLOB    NOT NULL,
	public        BLOB    NOT NULL,
	created_ms    INTEGER NOT NULL,
	not_before_ms INTEGER NOT NULL,
	retire_ms     INTEGER NOT NULL,
	PRIMARY KEY (tenant, kind, number)
) STRICT;
CREATE UNIQUE INDEX ring_key_id ON ring_key (tenant, kind, id);

CREATE TABLE enrolment (
	tenant     TEXT    NOT NULL,
	hash       TEXT    NOT NULL,
	host_uid   TEXT    NOT NULL,
	expires_ms INTEGER NOT NULL,
	PRIMARY KEY (tenant, hash)
) STRICT;
CREATE UNIQUE INDEX enrolment_hash ON enrolment (hash);
CREATE INDEX enrolment_host ON enrolment (tenant, host_uid);
CREATE INDEX enrolment_expires ON enrolment (expires_ms);

CREATE TABLE certificate (
	tenant     TEXT    NOT NULL,
	serial     TEXT    NOT NULL,
	host_uid   TEXT    NOT NULL,
	expires_ms INTEGER NOT NULL,
	PRIMARY KEY (tenant, serial)
) STRICT;
CREATE UNIQUE INDEX certificate_serial ON certificate (serial);
CREATE INDEX certificate_host ON certificate (tenant, host_uid);
CREATE INDEX certificate_expires ON certificate (expires_ms);

-- The number of the last batch of events that a host has shipped.
CREATE TABLE shipment (
	tenant   TEXT    NOT NULL,
	host_uid TEXT    NOT NULL,
	batch    INTEGER NOT NULL,
	PRIMARY KEY (tenant, host_uid)
) STRICT;

CREATE TABLE audit_chain (
	tenant TEXT    NOT NULL,
	chain  TEXT    NOT NULL,
	seq    INTEGER NOT NULL,
	hash   TEXT    NOT NULL,
	at_ms  INTEGER NOT NULL,
	PRIMARY KEY (tenant, chain)
) STRICT;

-- at_ms is when the batch was committed; it never falls within a chain. It is
-- for finding a place in the record, and no part of what is hashed.
CREATE TABLE audit_batch (
	tenant TEXT    NOT NULL,
	chain  TEXT    NOT NULL,
	seq    INTEGER NOT NULL,
	prev   TEXT    NOT NULL,
	hash   TEXT    NOT NULL,
	body   BLOB    NOT NULL,
	at_ms  INTEGER NOT NULL,
	PRIMARY KEY (tenant, chain, seq)
) STRICT;
CREATE UNIQUE INDEX audit_batch_at ON audit_batch (tenant, chain, at_ms, seq);
