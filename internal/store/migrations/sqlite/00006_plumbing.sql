-- +goose Up

-- Long-running operations. lease_ms is until when whoever runs it has said
-- that it does; ended_ms is 0 while it runs. One that runs when its lease is
-- over was lost with its process, and with it the transaction that was all of it.
CREATE TABLE operation (
	tenant     TEXT    NOT NULL,
	id         TEXT    NOT NULL,
	target     TEXT    NOT NULL,
	target_key TEXT    NOT NULL,
	method     TEXT    NOT NULL,
	action     TEXT    NOT NULL,
	principal  TEXT    NOT NULL,
	status     TEXT    NOT NULL,
	problem    TEXT    NOT NULL,
	message    TEXT    NOT NULL,
	started_ms INTEGER NOT NULL,
	ended_ms   INTEGER NOT NULL,
	lease_ms   INTEGER NOT NULL,
	PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX operation_target ON operation (tenant, target_key, started_ms);
CREATE INDEX operation_lease ON operation (lease_ms) WHERE ended_ms = 0;
CREATE INDEX operation_ended ON operation (ended_ms) WHERE ended_ms > 0;

-- What resources are found by besides their keys: "name=vm1", "tag=env",
-- "tagged=env=prod", each cut after 200 characters. Names are lower case, the
-- values of tags as they are. A term finds who may match; the document says who does.
CREATE TABLE resource_term (
	tenant       TEXT NOT NULL,
	resource_key TEXT NOT NULL,
	term         TEXT NOT NULL,
	PRIMARY KEY (tenant, resource_key, term)
) STRICT;
CREATE INDEX resource_term_term ON resource_term (tenant, term, resource_key);
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('name=' || replace(r.key, rtrim(r.key, replace(r.key, '/', '')), ''), 1, 200)
	FROM resource r
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('tag=' || lower(t.key), 1, 200)
	FROM resource r, json_each(CASE WHEN instr(CAST(r.body AS TEXT), '\u0000') = 0 AND json_type(CAST(r.body AS TEXT), '$.tags') = 'object'
		THEN CAST(r.body AS TEXT) ELSE '{}' END, '$.tags') t
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('tagged=' || lower(t.key) || '=' || t.value, 1, 200)
	FROM resource r, json_each(CASE WHEN instr(CAST(r.body AS TEXT), '\u0000') = 0 AND json_type(CAST(r.body AS TEXT), '$.tags') = 'object'
		THEN CAST(r.body AS TEXT) ELSE '{}' END, '$.tags') t
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;

-- What is below which management group: subscriptions and other groups, by
-- their keys. What has no row is below the tenant's root group.
CREATE TABLE management_tree (
	tenant     TEXT NOT NULL,
	key        TEXT NOT NULL,
	parent_key TEXT NOT NULL,
	PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX management_tree_parent ON management_tree (tenant, parent_key, key);

-- Namespaces that a subscription said it does not use; all others are registered.
CREATE TABLE unregistered (
	tenant           TEXT NOT NULL,
	subscription_key TEXT NOT NULL,
	namespace_key    TEXT NOT NULL,
	PRIMARY KEY (tenant, subscription_key, namespace_key)
) STRICT;
