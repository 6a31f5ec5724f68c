-- +goose Up

-- What role assignments say beside role, principal and scope; the index finds
-- who has a role of the tenant's own.
ALTER TABLE assignment ADD COLUMN condition TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE assignment ADD COLUMN condition_version TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX assignment_role ON assignment (tenant, role, scope_key);

-- The tenant's own roles. permissions and scopes are JSON.
CREATE TABLE role_definition (
	tenant      TEXT COLLATE "C" NOT NULL,
	id          TEXT COLLATE "C" NOT NULL,
	name        TEXT COLLATE "C" NOT NULL,
	name_key    TEXT COLLATE "C" NOT NULL,
	description TEXT COLLATE "C" NOT NULL,
	permissions TEXT COLLATE "C" NOT NULL,
	scopes      TEXT COLLATE "C" NOT NULL,
	created_ms  BIGINT NOT NULL,
	updated_ms  BIGINT NOT NULL,
	created_by  TEXT COLLATE "C" NOT NULL,
	updated_by  TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX role_definition_name ON role_definition (tenant, name_key);

-- permissions, principals and excluded are JSON; deny_principal has a row for
-- each principal that is in one of the two, and is what is looked up.
CREATE TABLE deny_assignment (
	tenant            TEXT COLLATE "C" NOT NULL,
	key               TEXT COLLATE "C" NOT NULL,
	id                TEXT COLLATE "C" NOT NULL,
	name              TEXT COLLATE "C" NOT NULL,
	description       TEXT COLLATE "C" NOT NULL,
	permissions       TEXT COLLATE "C" NOT NULL,
	scope             TEXT COLLATE "C" NOT NULL,
	scope_key         TEXT COLLATE "C" NOT NULL,
	scope_only        BIGINT NOT NULL,
	system            BIGINT NOT NULL,
	principals        TEXT COLLATE "C" NOT NULL,
	excluded          TEXT COLLATE "C" NOT NULL,
	condition         TEXT COLLATE "C" NOT NULL,
	condition_version TEXT COLLATE "C" NOT NULL,
	created_ms        BIGINT NOT NULL,
	updated_ms        BIGINT NOT NULL,
	created_by        TEXT COLLATE "C" NOT NULL,
	updated_by        TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, key)
);
CREATE INDEX deny_assignment_scope ON deny_assignment (tenant, scope_key, key);

CREATE TABLE deny_principal (
	tenant    TEXT COLLATE "C" NOT NULL,
	principal TEXT COLLATE "C" NOT NULL,
	excluded  BIGINT NOT NULL,
	key       TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, principal, excluded, key)
);
CREATE INDEX deny_principal_key ON deny_principal (tenant, key);

-- What a group has beside its row in principal.
CREATE TABLE directory_group (
	tenant      TEXT COLLATE "C" NOT NULL,
	id          TEXT COLLATE "C" NOT NULL,
	name        TEXT COLLATE "C" NOT NULL,
	name_key    TEXT COLLATE "C" NOT NULL,
	description TEXT COLLATE "C" NOT NULL,
	created_ms  BIGINT NOT NULL,
	updated_ms  BIGINT NOT NULL,
	created_by  TEXT COLLATE "C" NOT NULL,
	updated_by  TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, id)
);
CREATE INDEX directory_group_name ON directory_group (tenant, name_key, id);

CREATE TABLE group_member (
	tenant   TEXT COLLATE "C" NOT NULL,
	group_id TEXT COLLATE "C" NOT NULL,
	member   TEXT COLLATE "C" NOT NULL,
	PRIMARY KEY (tenant, group_id, member)
);
CREATE INDEX group_member_member ON group_member (tenant, member, group_id);
