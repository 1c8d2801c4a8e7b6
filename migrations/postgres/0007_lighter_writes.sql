-- A rotation is what is written most: nothing that it changes stands in an index of sessions, and its audit row stands
-- only in those indexes that somebody needs to find it.
-- The same stands in ../sqlite; see 0001 for how columns are written.

-- Room for the next version of a row beside it, so that no index has to learn of it. First, for the rows written below.
ALTER TABLE sessions SET (fillfactor = 75);

-- When housekeeping looks at the session next: never after its end by a limit, as the limits stood when this was
-- written. Activity moves the idle limit away without moving this; whoever then looks too early puts it off.
ALTER TABLE sessions ADD COLUMN look_at BIGINT NOT NULL DEFAULT 0;
UPDATE sessions SET look_at = CASE WHEN last_active_at + idle_ms < absolute_expires_at THEN last_active_at + idle_ms
    ELSE absolute_expires_at END;
CREATE INDEX sessions_to_look_at ON sessions (look_at) WHERE ended_at IS NULL;
DROP INDEX sessions_by_idle_end;

DROP INDEX sessions_living_by_user;
CREATE INDEX sessions_living_by_user ON sessions (user_id) WHERE ended_at IS NULL;

-- What a person did to themselves is found as what concerns them.
DROP INDEX audit_events_by_actor;
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, at, id) WHERE actor_id IS DISTINCT FROM subject_id;
-- Words that most rows have: the newest of them are found by time.
DROP INDEX audit_events_by_kind;
CREATE INDEX audit_events_by_kind ON audit_events (kind, at, id) WHERE kind <> 'token_rotated';
DROP INDEX audit_events_by_outcome;
CREATE INDEX audit_events_by_outcome ON audit_events (outcome, at, id) WHERE outcome <> 'success';
