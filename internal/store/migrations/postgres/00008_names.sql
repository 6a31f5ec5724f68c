-- +goose Up

-- Principals by the name without case, and by the kind.
CREATE INDEX principal_name ON principal (tenant, lower(name), id);
CREATE INDEX principal_kind ON principal (tenant, kind, id);
