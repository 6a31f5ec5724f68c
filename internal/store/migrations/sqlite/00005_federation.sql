-- +goose Up

-- What federated identity credentials say, as it is matched when a token is
-- asked for; the resources beside it are what clients wrote. The key is the
-- identity's object id, which stays when the identity moves. trust is a GUID,
-- another one whenever the credential says something else: issued tokens carry it.
CREATE TABLE federated_credential (
	tenant     TEXT NOT NULL,
	principal  TEXT NOT NULL,
	name_key   TEXT NOT NULL,
	name       TEXT NOT NULL,
	trust      TEXT NOT NULL,
	issuer     TEXT NOT NULL,
	subject    TEXT NOT NULL,
	language   TEXT NOT NULL,
	expression TEXT NOT NULL,
	audiences  TEXT NOT NULL,
	PRIMARY KEY (tenant, principal, name_key)
) STRICT;
CREATE INDEX federated_credential_subject ON federated_credential (tenant, principal, issuer, subject);
CREATE UNIQUE INDEX federated_credential_once ON federated_credential (tenant, principal, issuer, subject) WHERE subject <> '';
CREATE UNIQUE INDEX federated_credential_trust ON federated_credential (tenant, trust);

-- A client id is how a client says who it is.
CREATE UNIQUE INDEX principal_client ON principal (tenant, client) WHERE client <> '';
