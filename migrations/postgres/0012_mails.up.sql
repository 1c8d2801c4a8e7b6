-- What follows from events: alerts to the security desk, mails to people, and the mails that wait.
-- The same stands in ../sqlite; see 0001 for how columns are written.

-- Events from which something is still to follow. Written with the event, removed with what follows.
CREATE TABLE notices (
    event_id UUID NOT NULL PRIMARY KEY REFERENCES audit_events (id)
);

-- A storm of one kind is one alert and, when its minutes are over, one with the rest.
CREATE TABLE alert_windows (
    rule       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    began_at   BIGINT  NOT NULL,
    seen       BIGINT  NOT NULL CHECK (seen > 0),
    -- So many of them were told.
    told       BIGINT  NOT NULL CHECK (told >= 0 AND told <= seen),
    last_event UUID    NOT NULL REFERENCES audit_events (id)
);

-- Removed when the mail server has taken it, or when it is given up.
CREATE TABLE mails (
    id         UUID    NOT NULL PRIMARY KEY,
    event_id   UUID    NOT NULL REFERENCES audit_events (id),
    audience   TEXT    NOT NULL CHECK (audience IN ('person', 'security_desk')),
    recipient  TEXT    NOT NULL,
    -- Events it stands for.
    count      BIGINT  NOT NULL CHECK (count > 0),
    created_at BIGINT  NOT NULL,
    -- Not before; moved on by whoever begins a try, so that nobody else does.
    retry_at   BIGINT  NOT NULL,
    tries      BIGINT  NOT NULL CHECK (tries >= 0)
);
-- Alerts first.
CREATE INDEX mails_by_turn ON mails (audience DESC, retry_at, id);
CREATE INDEX mails_by_age ON mails (created_at);
CREATE INDEX mails_by_recipient ON mails (recipient);

-- When people were last told of something of a kind: not of everything at once.
CREATE TABLE people_told (
    user_id UUID NOT NULL REFERENCES users (id),
    kind    TEXT NOT NULL,
    told_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, kind)
);

-- The one mail server. While it is away: tries one after another, since when, when to try again, what went wrong last.
CREATE TABLE mail_server (
    one           BIGINT  NOT NULL PRIMARY KEY CHECK (one = 1),
    -- Counts up: whoever draws the consequences of events holds this row.
    turns         BIGINT  NOT NULL CHECK (turns >= 0),
    tries         BIGINT  NOT NULL CHECK (tries >= 0),
    failing_since BIGINT,
    retry_at      BIGINT,
    failure       TEXT,
    CHECK ((tries > 0) = (failing_since IS NOT NULL)),
    CHECK ((tries > 0) = (retry_at IS NOT NULL)),
    CHECK ((tries > 0) = (failure IS NOT NULL))
);
INSERT INTO mail_server (one, turns, tries) VALUES (1, 0, 0);
