-- How far each client has taken note of security events (CAEP over RFC 8936).
-- The same table stands in ../postgres; see 0001 for how columns are written.

CREATE TABLE event_streams (
    client_id  TEXT    NOT NULL PRIMARY KEY REFERENCES clients (client_id),
    -- Place in audit_seals: everything up to it was acknowledged, or does not concern the client.
    noted_seq  INTEGER NOT NULL CHECK (noted_seq >= 0),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
