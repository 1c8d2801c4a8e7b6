-- The way back to version 9 (`mayfly migrate --back-to 9`): sessions that were bound to a key of their browser go on
-- without it, so that from then on a copied cookie opens them. The same stands in ../sqlite.

ALTER TABLE sessions DROP COLUMN browser_key_proved_at;
ALTER TABLE sessions DROP COLUMN browser_key;
