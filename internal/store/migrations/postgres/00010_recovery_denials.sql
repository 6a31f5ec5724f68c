-- +goose Up

-- The deny assignments that were at a deleted identity and below it, in JSON. Of
-- those that were deleted before it is not known: null.
ALTER TABLE deleted_identity ADD COLUMN denials BYTEA NOT NULL DEFAULT '\x6e756c6c';
