-- Other software that gets tokens in its own name (OAuth 2.0 client credentials), and what it proved itself with.
-- The same tables stand in ../postgres; see 0001 for how columns are written.

CREATE TABLE clients (
    -- In a namespace of its own: no person's id and no client of people looks like this.
    client_id      TEXT    NOT NULL PRIMARY KEY CHECK (client_id LIKE 'svc-%'),
    name           TEXT    NOT NULL UNIQUE CHECK (name <> ''),
    authentication TEXT    NOT NULL CHECK (authentication IN ('private_key_jwt', 'client_secret')),
    -- SHA-256 of a secret of 256 random bits.
    secret_hash    BLOB    CHECK (length(secret_hash) = 32),
    -- JWK set (RFC 7517), public members only.
    public_jwks    TEXT,
    -- Space-separated: what its tokens may be for.
    scopes         TEXT    NOT NULL,
    access_ms      INTEGER NOT NULL CHECK (access_ms BETWEEN 60000 AND 600000),
    may_introspect INTEGER NOT NULL CHECK (may_introspect IN (0, 1)),
    status         TEXT    NOT NULL CHECK (status IN ('active', 'disabled')),
    created_at     INTEGER NOT NULL,
    CHECK ((authentication = 'client_secret') = (secret_hash IS NOT NULL)),
    CHECK ((authentication = 'private_key_jwt') = (public_jwks IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Each signed assertion proves a client once (RFC 7523, section 3, number 7).
CREATE TABLE client_assertions (
    client_id  TEXT    NOT NULL REFERENCES clients (client_id),
    jti        TEXT    NOT NULL,
    -- No longer accepted from then on, so no longer remembered.
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (client_id, jti)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_assertions_by_expiry ON client_assertions (expires_at);
