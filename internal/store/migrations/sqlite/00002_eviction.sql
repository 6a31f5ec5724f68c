-- +goose Up

-- Hosts that were evicted: the certificates of their own that they are known
-- by do not count until somebody readmits them.
CREATE TABLE eviction (
	tenant   TEXT    NOT NULL,
	host_uid TEXT    NOT NULL,
	at_ms    INTEGER NOT NULL,
	PRIMARY KEY (tenant, host_uid)
) STRICT;
