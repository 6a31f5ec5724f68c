-- +goose Up

-- What role assignments say beside role, principal and scope; the index finds
-- who has a role of the tenant's own.
ALTER TABLE assignment ADD COLUMN condition TEXT NOT NULL DEFAULT '';
ALTER TABLE assignment ADD COLUMN condition_version TEXT NOT NULL DEFAULT '';
CREATE INDEX assignment_role ON assignment (tenant, role, scope_key);

-- The tenant's own roles. permissions and scopes are JSON.
CREATE TABLE role_definition (
	tenant      TEXT    NOT NULL,
	id          TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	name_key    TEXT    NOT NULL,
	description TEXT    NOT NULL,
	permissions TEXT    NOT NULL,
	scopes      TEXT    NOT NULL,
	created_ms  INTEGER NOT NULL,
	updated_ms  INTEGER NOT NULL,
	created_by  TEXT    NOT NULL,
	updated_by  TEXT    NOT NULL,
	PRIMARY KEY (tenant, id)
) STRICT;
CREATE UNIQUE INDEX role_definition_name ON role_definition (tenant, name_key);

-- permissions, principals and excluded are JSON; deny_principal has a row for
-- each principal that is in one of the two, and is what is looked up.
CREATE TABLE deny_assignment (
	tenant            TEXT    NOT NULL,
	key               TEXT    NOT NULL,
	id                TEXT    NOT NULL,
	name              TEXT    NOT NULL,
	description       TEXT    NOT NULL,
	permissions       TEXT    NOT NULL,
	scope             TEXT    NOT NULL,
	scope_key         TEXT    NOT NULL,
	scope_only        INTEGER NOT NULL,
	system            INTEGER NOT NULL,
	principals        TEXT    NOT NULL,
	excluded          TEXT    NOT NULL,
	condition         TEXT    NOT NULL,
	condition_version TEXT    NOT NULL,
	created_ms        INTEGER NOT NULL,
	updated_ms        INTEGER NOT NULL,
	created_by        TEXT    NOT NULL,
	updated_by        TEXT    NOT NULL,
	PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX deny_assignment_scope ON deny_assignment (tenant, scope_key, key);

CREATE TABLE deny_principal (
	tenant    TEXT    NOT NULL,
	principal TEXT    NOT NULL,
	excluded  INTEGER NOT NULL,
	key       TEXT    NOT NULL,
	PRIMARY KEY (tenant, principal, excluded, key)
) STRICT;
CREATE INDEX deny_principal_key ON deny_principal (tenant, key);

-- What a group has beside its row in principal.
CREATE TABLE directory_group (
	tenant      TEXT    NOT NULL,
	id          TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	name_key    TEXT    NOT NULL,
	description TEXT    NOT NULL,
	created_ms  INTEGER NOT NULL,
	updated_ms  INTEGER NOT NULL,
	created_by  TEXT    NOT NULL,
	updated_by  TEXT    NOT NULL,
	PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX directory_group_name ON directory_group (tenant, name_key, id);

CREATE TABLE group_member (
	tenant   TEXT NOT NULL,
	group_id TEXT NOT NULL,
	member   TEXT NOT NULL,
	PRIMARY KEY (tenant, group_id, member)
) STRICT;
CREATE INDEX group_member_member ON group_member (tenant, member, group_id);
