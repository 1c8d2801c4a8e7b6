-- How far each client has taken note of security events (CAEP over RFC 8936).
-- The same table stands in ../sqlite; see 0001 for how columns are written.

CREATE TABLE event_streams (
    client_id  TEXT    COLLATE "C" NOT NULL PRIMARY KEY REFERENCES clients (client_id),
    -- Place in audit_seals: everything up to it was acknowledged, or does not concern the client.
    noted_seq  BIGINT  NOT NULL CHECK (noted_seq >= 0),
    created_at BIGINT  NOT NULL
);
