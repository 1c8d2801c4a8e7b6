-- The way back to version 10 (`mayfly migrate --back-to 10`): no service is told of ended sessions any more, and after
-- the way forward they have to be added again. The same stands in ../sqlite.

DROP TABLE logout_receivers;
