-- Proof of possession (DPoP, RFC 9449): the key that a program's session is bound to, and the proofs that were used.

-- SHA-256 thumbprint of that key (RFC 7638) in base64url, as it stands in access tokens. Set at sign-in, never changed.
ALTER TABLE sessions ADD COLUMN jkt TEXT CHECK (jkt IS NULL OR (client = 'native' AND length(jkt) = 43));

-- Each proof is good once.
CREATE TABLE dpop_proofs (
    -- SHA-256 of the key's thumbprint and the proof's jti.
    id         BYTEA   NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    -- Too old for any node from then on, so no longer remembered.
    expires_at BIGINT  NOT NULL
);
CREATE INDEX dpop_proofs_by_expiry ON dpop_proofs (expires_at);
