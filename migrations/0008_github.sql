-- Users' connections to GitHub.

CREATE TABLE github_connections (
    user_id TEXT PRIMARY KEY,
    form TEXT NOT NULL,                 -- app: tokens that are exchanged; token: one that a person made
    login TEXT NOT NULL,
    host TEXT NOT NULL,                 -- the GitHub that it is for, say github.com
    secret BLOB NOT NULL,               -- sealed JSON of credentials.github_connection.Secrets
    generation INTEGER NOT NULL,        -- grows with every secret; what belongs to an older one is not stored
    begun INTEGER,                      -- an exchange was sent then and its answer is not known; NULL: none
    problem TEXT,                       -- why GitHub has ended the connection; NULL: it has not
    at INTEGER NOT NULL                 -- when the user connected; times: milliseconds since the epoch
) STRICT;
