-- How this host's owner is signed in at the vendors of agents.
CREATE TABLE accounts (
    provider TEXT PRIMARY KEY,          -- claude, codex
    form TEXT NOT NULL,                 -- key, token or login (interfaces.Account)
    secret BLOB NOT NULL,               -- sealed JSON: name to secret (credentials/sealing.py)
    at INTEGER NOT NULL                 -- milliseconds since the epoch
) STRICT;
