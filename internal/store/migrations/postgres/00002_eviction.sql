-- +goose Up

-- Hosts that were evicted: the certificates of their own that they are known
-- by do not count until somebody readmits them.
CREATE TABLE eviction (
	tenant   TEXT COLLATE "C" NOT NULL,
	host_uid TEXT COLLATE "C" NOT NULL,
	at_ms    BIGINT NOT NULL,
	PRIMARY KEY (tenant, host_uid)
);
