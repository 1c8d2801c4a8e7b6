-- Processes that serve this database, each with what its clock shows beside the database's own.
-- The same table stands in ../postgres; see 0001 for how columns are written.

CREATE TABLE nodes (
    -- Made anew at every start.
    id       BLOB    NOT NULL PRIMARY KEY,
    -- Milliseconds; negative if the node is behind.
    ahead_ms INTEGER NOT NULL,
    -- By the database's clock.
    seen_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
