-- When the current refresh token was last handed out: by its rotation, or again after an answer was lost.
ALTER TABLE sessions ADD COLUMN handed_out_at INTEGER NOT NULL DEFAULT 0;
-- Since when its parent is good for nothing: the client first showed the child, or the child was handed out for the
-- last time.
ALTER TABLE sessions ADD COLUMN superseded_at INTEGER NOT NULL DEFAULT 0;
-- Of sessions from before, the last rotation is the best that is known.
UPDATE sessions SET handed_out_at = rotated_at, superseded_at = rotated_at;
