-- +goose Up

-- A client id is how a client says who it is.
CREATE UNIQUE INDEX IF NOT EXISTS principal_client ON principal (tenant, client) WHERE client <> '';
