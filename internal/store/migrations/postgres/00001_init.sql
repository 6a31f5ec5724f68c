-- The same tables as in ../sqlite; a change goes into both. Times are
-- milliseconds since 1970 in UTC, 0 for "never"; columns ending in _key are
-- lower case and are what is compared; their neighbours keep the author's case.
-- Text is collated "C", so that ranges of keys are ranges of bytes, as in SQLite.

-- +goose Up

CREATE TABLE tenant (
	id         TEXT COLLATE "C" NOT NULL,
	name       TEXT COLLATE "C" NOT NULL,
	created_ms BIGINT  NOT NULL,
	revision   BIGINT  NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE change (
	tenant   TEXT COLLATE "C" NOT NULL,
	revision BIGINT  NOT NULL,
	kind     TEXT COLLATE "C" NOT NULL,
	key      TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, revision, kind, key)
);

CREATE TABLE resource (
	tenant     TEXT COLLATE "C" NOT NULL,
	key        TEXT COLLATE "C" NOT NULL,
	id         TEXT COLLATE "C" NOT NULL,
	type       TEXT COLLATE "C" NOT NULL,
	type_key   TEXT COLLATE "C" NOT NULL,
	uid        TEXT COLLATE "C" NOT NULL,
	body       BYTEA   NOT NULL,
	bound_to   TEXT COLLATE "C" NOT NULL,
	bound_key  TEXT COLLATE "C" NOT NULL,
	etag       BIGINT  NOT NULL,
	created_ms BIGINT  NOT NULL,
	updated_ms BIGINT  NOT NULL,
	created_by TEXT COLLATE "C" NOT NULL,
	updated_by TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, key)
);
CREATE INDEX resource_type ON resource (tenant, type_key, key);
CREATE INDEX resource_bound ON resource (tenant, bound_key) WHERE bound_key <> '';
CREATE INDEX resource_uid ON resource (tenant, uid);

CREATE TABLE principal (
	tenant        TEXT COLLATE "C" NOT NULL,
	id            TEXT COLLATE "C" NOT NULL,
	client        TEXT COLLATE "C" NOT NULL,
	kind          TEXT COLLATE "C" NOT NULL,
	name          TEXT COLLATE "C" NOT NULL,
	resource      TEXT COLLATE "C" NOT NULL,
	resource_key  TEXT COLLATE "C" NOT NULL,
	system        BIGINT  NOT NULL,
	enabled       BIGINT  NOT NULL,
	valid_from_ms BIGINT  NOT NULL,
	created_ms    BIGINT  NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX principal_resource ON principal (tenant, resource_key) WHERE resource_key <> '';

CREATE TABLE attachment (
	tenant       TEXT COLLATE "C" NOT NULL,
	resource_key TEXT COLLATE "C" NOT NULL,
	identity_key TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, resource_key, identity_key)
);
CREATE INDEX attachment_identity ON attachment (tenant, identity_key, resource_key);

CREATE TABLE assignment (
	tenant         TEXT COLLATE "C" NOT NULL,
	key            TEXT COLLATE "C" NOT NULL,
	id             TEXT COLLATE "C" NOT NULL,
	role           TEXT COLLATE "C" NOT NULL,
	principal      TEXT COLLATE "C" NOT NULL,
	principal_type TEXT COLLATE "C" NOT NULL,
	scope          TEXT COLLATE "C" NOT NULL,
	scope_key      TEXT COLLATE "C" NOT NULL,
	description    TEXT COLLATE "C" NOT NULL,
	created_ms     BIGINT  NOT NULL,
	updated_ms     BIGINT  NOT NULL,
	created_by     TEXT COLLATE "C" NOT NULL,
	updated_by     TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, key)
);
CREATE UNIQUE INDEX assignment_once ON assignment (tenant, scope_key, role, principal);
CREATE INDEX assignment_scope ON assignment (tenant, scope_key, key);
CREATE INDEX assignment_principal ON assignment (tenant, principal, key);

-- A name is unique in the installation, so here the tenant is no part of the key.
CREATE TABLE claimed_name (
	kind         TEXT COLLATE "C" NOT NULL,
	name         TEXT COLLATE "C" NOT NULL,
	tenant       TEXT COLLATE "C" NOT NULL,
	resource_key TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (kind, name)
);
CREATE INDEX claimed_name_resource ON claimed_name (tenant, resource_key);

CREATE TABLE api (
	tenant        TEXT COLLATE "C" NOT NULL,
	audience_key  TEXT COLLATE "C" NOT NULL,
	audience      TEXT COLLATE "C" NOT NULL,
	client        TEXT COLLATE "C" NOT NULL,
	token_version BIGINT  NOT NULL,
	resource      TEXT COLLATE "C" NOT NULL,
	resource_key  TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, audience_key)
);
CREATE INDEX api_resource ON api (tenant, resource_key);

-- latest is the number of the newest version; 0 marks a name that a
-- transaction holds before the first version is there, and is never committed.
-- The reference keeps a vault that holds secrets from being deleted under them.
CREATE TABLE secret (
	tenant     TEXT COLLATE "C" NOT NULL,
	vault_key  TEXT COLLATE "C" NOT NULL,
	name_key   TEXT COLLATE "C" NOT NULL,
	name       TEXT COLLATE "C" NOT NULL,
	latest     BIGINT  NOT NULL,
	deleted_ms BIGINT  NOT NULL,
	purge_ms   BIGINT  NOT NULL,
	PRIMARY KEY (tenant, vault_key, name_key),
	FOREIGN KEY (tenant, vault_key) REFERENCES resource (tenant, key)
);
CREATE INDEX secret_purge ON secret (purge_ms) WHERE purge_ms > 0;

CREATE TABLE secret_version (
	tenant        TEXT COLLATE "C" NOT NULL,
	vault_key     TEXT COLLATE "C" NOT NULL,
	name_key      TEXT COLLATE "C" NOT NULL,
	version       TEXT COLLATE "C" NOT NULL,
	number        BIGINT  NOT NULL,
	sealed        BYTEA   NOT NULL,
	content_type  TEXT COLLATE "C" NOT NULL,
	tags          TEXT COLLATE "C" NOT NULL,
	enabled       BIGINT  NOT NULL,
	not_before_ms BIGINT  NOT NULL,
	expires_ms    BIGINT  NOT NULL,
	created_ms    BIGINT  NOT NULL,
	updated_ms    BIGINT  NOT NULL,
	PRIMARY KEY (tenant, vault_key, name_key, version),
	FOREIGN KEY (tenant, vault_key, name_key) REFERENCES secret (tenant, vault_key, name_key) ON DELETE CASCADE
);
CREATE UNIQUE INDEX secret_version_number ON secret_version (tenant, vault_key, name_key, number);

CREATE TABLE ring_key (
	tenant        TEXT COLLATE "C" NOT NULL,
	kind          TEXT COLLATE "C" NOT NULL,
	number        BIGINT  NOT NULL,
	id            TEXT COLLATE "C" NOT NULL,
	sealed        BYTEA   NOT NULL,
	public        BYTEA   NOT NULL,
	created_ms    BIGINT  NOT NULL,
	not_before_ms BIGINT  NOT NULL,
	retire_ms     BIGINT  NOT NULL,
	PRIMARY KEY (tenant, kind, number)
);
CREATE UNIQUE INDEX ring_key_id ON ring_key (tenant, kind, id);

CREATE TABLE enrolment (
	tenant     TEXT COLLATE "C" NOT NULL,
	hash       TEXT COLLATE "C" NOT NULL,
	host_uid   TEXT COLLATE "C" NOT NULL,
	expires_ms BIGINT  NOT NULL,
	PRIMARY KEY (tenant, hash)
);
CREATE UNIQUE INDEX enrolment_hash ON enrolment (hash);
CREATE INDEX enrolment_host ON enrolment (tenant, host_uid);
CREATE INDEX enrolment_expires ON enrolment (expires_ms);

CREATE TABLE certificate (
	tenant     TEXT COLLATE "C" NOT NULL,
	serial     TEXT COLLATE "C" NOT NULL,
	host_uid   TEXT COLLATE "C" NOT NULL,
	expires_ms BIGINT  NOT NULL,
	PRIMARY KEY (tenant, serial)
);
CREATE UNIQUE INDEX certificate_serial ON certificate (serial);
CREATE INDEX certificate_host ON certificate (tenant, host_uid);
CREATE INDEX certificate_expires ON certificate (expires_ms);

-- The number of the last batch of events that a host has shipped.
CREATE TABLE shipment (
	tenant   TEXT COLLATE "C" NOT NULL,
	host_uid TEXT COLLATE "C" NOT NULL,
	batch    BIGINT  NOT NULL,
	PRIMARY KEY (tenant, host_uid)
);

CREATE TABLE audit_chain (
	tenant TEXT COLLATE "C" NOT NULL,
	chain  TEXT COLLATE "C" NOT NULL,
	seq    BIGINT  NOT NULL,
	hash   TEXT COLLATE "C" NOT NULL,
	at_ms  BIGINT  NOT NULL,
	PRIMARY KEY (tenant, chain)
);

-- at_ms is when the batch was committed; it never falls within a chain. It is
-- for finding a place in the record, and no part of what is hashed.
CREATE TABLE audit_batch (
	tenant TEXT COLLATE "C" NOT NULL,
	chain  TEXT COLLATE "C" NOT NULL,
	seq    BIGINT  NOT NULL,
	prev   TEXT COLLATE "C" NOT NULL,
	hash   TEXT COLLATE "C" NOT NULL,
	body   BYTEA   NOT NULL,
	at_ms  BIGINT  NOT NULL,
	PRIMARY KEY (tenant, chain, seq)
);
CREATE UNIQUE INDEX audit_batch_at ON audit_batch (tenant, chain, at_ms, seq);
