-- +goose Up

-- The deny assignments that were at a deleted identity and below it, in JSON. Of
-- those that were deleted before it is not known: null.
ALTER TABLE deleted_identity ADD COLUMN denials BLOB NOT NULL DEFAULT X'6e756c6c';
