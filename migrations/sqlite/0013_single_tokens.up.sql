-- Single tokens that were revoked are looked for by their id. The same index stands in ../postgres.

CREATE INDEX revocations_of_tokens ON revocations (value) WHERE kind = 'token';
