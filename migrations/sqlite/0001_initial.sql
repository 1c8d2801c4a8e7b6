-- Mayfly's tables. The same file name and the same tables, columns and indexes stand in ../postgres;
-- a test compares them. Times are Unix milliseconds (UTC), durations milliseconds, booleans 0/1.
-- INTEGER here is BIGINT there (STRICT tables know no other name); ids are BLOB here and UUID there.

-- Rows to queue up at, where what is to be protected has no row of its own: UPDATE one, and others wait.
CREATE TABLE locks (
    name TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
INSERT INTO locks (name) VALUES ('administrators'), ('bootstrap');

CREATE TABLE users (
    id                  BLOB    NOT NULL PRIMARY KEY,
    username            TEXT    NOT NULL,
    -- NFKC, lower case: what uniqueness and sign-in go by.
    username_canonical  TEXT    NOT NULL UNIQUE,
    email               TEXT,
    email_canonical     TEXT    UNIQUE,
    display_name        TEXT    NOT NULL,
    status              TEXT    NOT NULL CHECK (status IN ('invited', 'active', 'disabled')),
    -- PHC string; none until an invitation was accepted.
    password_hash       TEXT,
    password_changed_at INTEGER,
    -- Sessions of an older auth epoch are over; access tokens of an older grant epoch are refused.
    auth_epoch          INTEGER NOT NULL,
    grant_epoch         INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    -- Canonical names and address, one a line: what the search for people looks through.
    search_text         TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE roles (
    -- Without spaces: storage reads a person's roles as one text, separated by spaces.
    name        TEXT    NOT NULL PRIMARY KEY CHECK (name <> '' AND name NOT LIKE '% %'),
    description TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE user_roles (
    user_id BLOB NOT NULL REFERENCES users (id),
    role    TEXT NOT NULL REFERENCES roles (name),
    PRIMARY KEY (user_id, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX user_roles_by_role ON user_roles (role, user_id);

-- Every version a role's policy ever had; the highest is in force.
CREATE TABLE policies (
    role               TEXT    NOT NULL REFERENCES roles (name),
    version            INTEGER NOT NULL,
    access_ms          INTEGER NOT NULL,
    idle_ms            INTEGER NOT NULL,
    absolute_ms        INTEGER NOT NULL,
    idle_warning_ms    INTEGER NOT NULL,
    remember_device_ms INTEGER NOT NULL,
    mfa                TEXT    NOT NULL CHECK (mfa IN ('off', 'optional', 'required')),
    step_up_ms         INTEGER NOT NULL,
    max_sessions       INTEGER NOT NULL,
    review_at          INTEGER,
    reason             TEXT    NOT NULL,
    justification      TEXT,
    author_id          BLOB    REFERENCES users (id),
    created_at         INTEGER NOT NULL,
    PRIMARY KEY (role, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE authenticators (
    user_id       BLOB    NOT NULL PRIMARY KEY REFERENCES users (id),
    -- TOTP secret, sealed with the key-encryption key.
    secret_sealed BLOB    NOT NULL,
    -- Last accepted time step (RFC 6238); only a greater one is accepted.
    last_step     INTEGER NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE recovery_codes (
    user_id    BLOB    NOT NULL REFERENCES users (id),
    code_hash  BLOB    NOT NULL CHECK (length(code_hash) = 32),
    created_at INTEGER NOT NULL,
    used_at    INTEGER,
    PRIMARY KEY (user_id, code_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    id            BLOB    NOT NULL PRIMARY KEY,
    user_id       BLOB    NOT NULL REFERENCES users (id),
    secret_hash   BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    created_at    INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    -- A new sign-in from here may leave out the second factor until then.
    trusted_until INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id);

CREATE TABLE sessions (
    id                      BLOB    NOT NULL PRIMARY KEY,
    user_id                 BLOB    NOT NULL REFERENCES users (id),
    device_id               BLOB    REFERENCES devices (id),
    client                  TEXT    NOT NULL CHECK (client IN ('browser', 'native')),
    -- 32 random bytes that refresh tokens are derived from, sealed with the key-encryption key.
    secret_sealed           BLOB    NOT NULL,
    -- One step per rotation.
    generation              INTEGER NOT NULL,
    rotated_at              INTEGER NOT NULL,
    -- 1 once the client itself has shown something of this generation.
    child_confirmed         INTEGER NOT NULL CHECK (child_confirmed IN (0, 1)),
    reissues                INTEGER NOT NULL,
    -- `exp` of the access token that went out with this generation.
    access_expires_at       INTEGER NOT NULL,
    -- Access tokens of a smaller generation are refused.
    min_generation          INTEGER NOT NULL,
    auth_epoch              INTEGER NOT NULL,
    grant_epoch             INTEGER NOT NULL,
    started_at              INTEGER NOT NULL,
    authenticated_at        INTEGER NOT NULL,
    last_active_at          INTEGER NOT NULL,
    access_ms               INTEGER NOT NULL,
    idle_ms                 INTEGER NOT NULL,
    idle_rule_role          TEXT    NOT NULL,
    idle_rule_version       INTEGER NOT NULL,
    absolute_expires_at     INTEGER NOT NULL,
    absolute_rule_role      TEXT    NOT NULL,
    absolute_rule_version   INTEGER NOT NULL,
    -- Space-separated, RFC 8176: pwd, otp, …
    amr                     TEXT    NOT NULL,
    address                 TEXT    NOT NULL,
    user_agent              TEXT    NOT NULL,
    ended_at                INTEGER,
    end_reason              TEXT,
    end_rule_role           TEXT,
    end_rule_version        INTEGER,
    end_limit_ms            INTEGER,
    CHECK ((ended_at IS NULL) = (end_reason IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_living_by_user ON sessions (user_id, last_active_at) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended_by_user ON sessions (user_id, ended_at) WHERE ended_at IS NOT NULL;
-- Also for removing long ended ones.
CREATE INDEX sessions_by_absolute_end ON sessions (absolute_expires_at);
CREATE INDEX sessions_by_idle_end ON sessions ((last_active_at + idle_ms)) WHERE ended_at IS NULL;

-- State before or beside a sign-in (tower-sessions): ids only as hashes, data sealed.
CREATE TABLE flows (
    id_hash     BLOB    NOT NULL PRIMARY KEY CHECK (length(id_hash) = 32),
    data_sealed BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX flows_by_expiry ON flows (expires_at);

-- Single-use links: making the first administrator, invitations.
CREATE TABLE one_time_links (
    secret_hash BLOB    NOT NULL PRIMARY KEY CHECK (length(secret_hash) = 32),
    purpose     TEXT    NOT NULL CHECK (purpose IN ('first_admin', 'invitation')),
    user_id     BLOB    REFERENCES users (id),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX one_time_links_by_user ON one_time_links (user_id);

-- Key ring: signing keys and the edge keys that refresh tokens are tagged with.
CREATE TABLE keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    purpose        TEXT    NOT NULL CHECK (purpose IN ('signing', 'edge')),
    algorithm      TEXT    NOT NULL CHECK (algorithm IN ('ES256', 'EdDSA', 'HS256')),
    state          TEXT    NOT NULL CHECK (state IN ('next', 'active', 'retired', 'removed')),
    private_sealed BLOB    NOT NULL,
    public_jwk     TEXT,
    created_at     INTEGER NOT NULL,
    activated_at   INTEGER,
    retired_at     INTEGER,
    removed_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_one_active ON keys (purpose) WHERE state = 'active';

-- Append-only: triggers refuse UPDATE and DELETE.
CREATE TABLE audit_events (
    id         BLOB    NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    outcome    TEXT    NOT NULL CHECK (outcome IN ('success', 'failure', 'denied')),
    actor_id   BLOB,
    subject_id BLOB,
    session_id BLOB,
    device_id  BLOB,
    address    TEXT,
    user_agent TEXT,
    request_id TEXT,
    reason     TEXT,
    -- JSON object of further facts, and of changes as {"field": {"before": …, "after": …}}.
    facts      TEXT    NOT NULL,
    changes    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_events_by_time ON audit_events (at, id);
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, at, id);
CREATE INDEX audit_events_by_subject ON audit_events (subject_id, at, id);
CREATE INDEX audit_events_by_kind ON audit_events (kind, at, id);
CREATE INDEX audit_events_by_outcome ON audit_events (outcome, at, id);
CREATE INDEX audit_events_by_session ON audit_events (session_id, at, id);

-- The seal: one row per event in the order of sealing; each hash covers the one before.
CREATE TABLE audit_seals (
    -- Counts up from 1 without gaps.
    seq       INTEGER NOT NULL PRIMARY KEY CHECK (seq > 0),
    event_id  BLOB    NOT NULL UNIQUE REFERENCES audit_events (id),
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    sealed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_seals_no_update BEFORE UPDATE ON audit_seals
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_seals_no_delete BEFORE DELETE ON audit_seals
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
