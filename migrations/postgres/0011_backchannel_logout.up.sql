-- Services that are told when a session ends (OpenID Connect Back-Channel Logout 1.0), and how far each was told.
-- The same table stands in ../sqlite; see 0001 for how columns are written.

CREATE TABLE logout_receivers (
    client_id     TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES clients (client_id),
    -- https, or http on this machine.
    uri           TEXT NOT NULL,
    -- Place in audit_seals: everything up to it was told, or does not concern the service.
    noted_seq     BIGINT NOT NULL CHECK (noted_seq >= 0),
    -- Until then one node is telling it, and no other does.
    claimed_until BIGINT NOT NULL,
    -- While it cannot be told: tries one after another, since when, when to try again, and what went wrong last.
    tries         BIGINT NOT NULL CHECK (tries >= 0),
    failing_since BIGINT,
    retry_at      BIGINT,
    failure       TEXT,
    created_at    BIGINT NOT NULL,
    CHECK ((tries > 0) = (failing_since IS NOT NULL)),
    CHECK ((tries > 0) = (retry_at IS NOT NULL)),
    CHECK ((tries > 0) = (failure IS NOT NULL))
);
