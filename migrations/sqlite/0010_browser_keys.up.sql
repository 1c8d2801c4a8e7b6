-- The key that a browser's session is bound to (device bound session credentials).
-- The same stands in ../postgres; see 0001 for how columns are written.

-- On P-256, uncompressed (SEC 1). Set once, right after sign-in.
ALTER TABLE sessions ADD COLUMN browser_key BLOB
    CHECK (browser_key IS NULL OR (client = 'browser' AND length(browser_key) = 65));
-- When it was first signed with; until then nothing is asked of the browser.
ALTER TABLE sessions ADD COLUMN browser_key_proved_at INTEGER
    CHECK (browser_key_proved_at IS NULL OR browser_key IS NOT NULL);
