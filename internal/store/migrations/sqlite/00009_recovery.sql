-- +goose Up

-- What else a deleted identity had, in JSON: the resources of its federated
-- credentials, the groups that it was in, the resources that had it. Of those
-- that were deleted before it is not known: null.
ALTER TABLE deleted_identity ADD COLUMN credentials BLOB NOT NULL DEFAULT X'6e756c6c';
ALTER TABLE deleted_identity ADD COLUMN memberships BLOB NOT NULL DEFAULT X'6e756c6c';
ALTER TABLE deleted_identity ADD COLUMN attachments BLOB NOT NULL DEFAULT X'6e756c6c';
