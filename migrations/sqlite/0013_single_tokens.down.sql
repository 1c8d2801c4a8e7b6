-- The way back to version 12 (`mayfly migrate --back-to 12`): nodes of that version take a service's access token that was
-- revoked by itself until its end, ten minutes at most; so do not go back within these. The same stands in ../postgres.

DROP INDEX revocations_of_tokens;
