-- The way back to version 8 (`mayfly migrate --back-to 8`): its indexes hold rows that nobody looks for. Nothing is lost.
-- The same stands in ../sqlite.

DROP INDEX audit_events_by_actor;
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, at, id) WHERE actor_id IS DISTINCT FROM subject_id;
DROP INDEX audit_events_by_subject;
CREATE INDEX audit_events_by_subject ON audit_events (subject_id, at, id);
DROP INDEX audit_events_by_session;
CREATE INDEX audit_events_by_session ON audit_events (session_id, at, id);
