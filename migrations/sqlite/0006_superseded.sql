-- Since when the parent of the current refresh token is good for nothing: the client first showed the child, or the
-- child was handed out for the last time. Of sessions from before, the last rotation is the best that is known.
ALTER TABLE sessions ADD COLUMN superseded_at INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET superseded_at = rotated_at;
