-- A row of the audit log stands in an index only by what it says: most have no session or nobody who did it to another.
-- The same stands in ../postgres; see 0001 for how columns are written.

DROP INDEX audit_events_by_actor;
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, at, id)
    WHERE actor_id IS NOT NULL AND actor_id IS DISTINCT FROM subject_id;
DROP INDEX audit_events_by_subject;
CREATE INDEX audit_events_by_subject ON audit_events (subject_id, at, id) WHERE subject_id IS NOT NULL;
DROP INDEX audit_events_by_session;
CREATE INDEX audit_events_by_session ON audit_events (session_id, at, id) WHERE session_id IS NOT NULL;
