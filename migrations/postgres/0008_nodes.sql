-- Processes that serve this database, each with what its clock shows beside the database's own.
-- The same table stands in ../sqlite; see 0001 for how columns are written.

CREATE TABLE nodes (
    -- Made anew at every start.
    id       UUID    NOT NULL PRIMARY KEY,
    -- Milliseconds; negative if the node is behind.
    ahead_ms BIGINT  NOT NULL,
    -- By the database's clock.
    seen_at  BIGINT  NOT NULL
);
