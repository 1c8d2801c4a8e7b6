-- What access tokens that are still alive have to be refused: read by our own nodes and, as a feed, by other services.

CREATE TABLE revocations (
    -- Given in the order of the commits: who has seen n has seen everything up to n.
    cursor           INTEGER NOT NULL PRIMARY KEY CHECK (cursor > 0),
    kind             TEXT    NOT NULL CHECK (kind IN ('session', 'subject', 'key', 'token')),
    -- Id of the session, the subject, the key or the token.
    value            TEXT    NOT NULL,
    -- Of a session: only tokens of a smaller generation.
    below_generation INTEGER,
    -- Of a subject: only tokens issued before.
    issued_before    INTEGER,
    at               INTEGER NOT NULL,
    -- No token it concerns lives any longer.
    until            INTEGER NOT NULL,
    CHECK ((kind = 'subject') = (issued_before IS NOT NULL)),
    CHECK (kind = 'session' OR below_generation IS NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_by_until ON revocations (until);

-- One row, raised as the last act of a transaction that revokes: its lock puts such commits into one order.
CREATE TABLE revocation_cursor (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO revocation_cursor (one, last) VALUES (1, 0);
