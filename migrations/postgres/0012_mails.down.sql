-- The way back to version 11 (`mayfly migrate --back-to 11`): mails that wait are not sent, and nobody is told by mail of
-- what happens before the way forward. The same stands in ../sqlite.

DROP TABLE mail_server;
DROP TABLE people_told;
DROP TABLE mails;
DROP TABLE alert_windows;
DROP TABLE notices;
