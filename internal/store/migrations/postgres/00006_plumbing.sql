-- +goose Up

-- Long-running operations. lease_ms is until when whoever runs it has said
-- that it does; ended_ms is 0 while it runs. One that runs when its lease is
-- over was lost with its process, and with it the transaction that was all of it.
CREATE TABLE operation (
	tenant     TEXT COLLATE "C" NOT NULL,
	id         TEXT COLLATE "C" NOT NULL,
	target     TEXT COLLATE "C" NOT NULL,
	target_key TEXT COLLATE "C" NOT NULL,
	method     TEXT COLLATE "C" NOT NULL,
	action     TEXT COLLATE "C" NOT NULL,
	principal  TEXT COLLATE "C" NOT NULL,
	status     TEXT COLLATE "C" NOT NULL,
	problem    TEXT COLLATE "C" NOT NULL,
	message    TEXT COLLATE "C" NOT NULL,
	started_ms BIGINT NOT NULL,
	ended_ms   BIGINT NOT NULL,
	lease_ms   BIGINT NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX operation_target ON operation (tenant, target_key, started_ms);
CREATE INDEX operation_lease ON operation (lease_ms) WHERE ended_ms = 0;
CREATE INDEX operation_ended ON operation (ended_ms) WHERE ended_ms > 0;

-- What resources are found by besides their keys: "name=vm1", "tag=env",
-- "tagged=env=prod", each cut after 200 characters. Names are lower case, the
-- values of tags as they are. A term finds who may match; the document says who does.
CREATE TABLE resource_term (
	tenant       TEXT COLLATE "C" NOT NULL,
	resource_key TEXT COLLATE "C" NOT NULL,
	term         TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, resource_key, term)
);
CREATE INDEX resource_term_term ON resource_term (tenant, term, resource_key);
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('name=' || substring(r.key from '[^/]*$'), 1, 200)
	FROM resource r
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('tag=' || lower(t.key COLLATE "C"), 1, 200)
	FROM resource r, json_each_text(CASE WHEN position('\u0000' in convert_from(r.body, 'UTF8')) = 0
		AND json_typeof(convert_from(r.body, 'UTF8')::json -> 'tags') = 'object' THEN convert_from(r.body, 'UTF8')::json -> 'tags' ELSE '{}'::json END) t
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;
INSERT INTO resource_term (tenant, resource_key, term)
	SELECT r.tenant, r.key, substr('tagged=' || lower(t.key COLLATE "C") || '=' || t.value, 1, 200)
	FROM resource r, json_each_text(CASE WHEN position('\u0000' in convert_from(r.body, 'UTF8')) = 0
		AND json_typeof(convert_from(r.body, 'UTF8')::json -> 'tags') = 'object' THEN convert_from(r.body, 'UTF8')::json -> 'tags' ELSE '{}'::json END) t
	WHERE true ON CONFLICT (tenant, resource_key, term) DO NOTHING;

-- What is below which management group: subscriptions and other groups, by
-- their keys. What has no row is below the tenant's root group.
CREATE TABLE management_tree (
	tenant     TEXT COLLATE "C" NOT NULL,
	key        TEXT COLLATE "C" NOT NULL,
	parent_key TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, key)
);
CREATE INDEX management_tree_parent ON management_tree (tenant, parent_key, key);

-- Namespaces that a subscription said it does not use; all others are registered.
CREATE TABLE unregistered (
	tenant           TEXT COLLATE "C" NOT NULL,
	subscription_key TEXT COLLATE "C" NOT NULL,
	namespace_key    TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, subscription_key, namespace_key)
);
