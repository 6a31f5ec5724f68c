-- +goose Up

-- Principals by what clients know of them: the client id, the name without
-- case, the kind.
CREATE UNIQUE INDEX IF NOT EXISTS principal_client ON principal (tenant, client) WHERE client <> '';
CREATE INDEX principal_name ON principal (tenant, lower(name), id);
CREATE INDEX principal_kind ON principal (tenant, kind, id);
