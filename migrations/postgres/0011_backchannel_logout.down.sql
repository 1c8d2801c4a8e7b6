-- The way back to version 10 (`mayfly migrate --back-to 10`): no service is told of ended sessions any more. After the way
-- forward `mayfly clients logout-uri` has them told again, from then on. Version 10 cannot show pages of the audit log on
-- which such a service was added, was away or refused something. The same stands in ../sqlite.

DROP TABLE logout_receivers;
