-- Times are milliseconds since the epoch. JSON columns hold UTF-8 text.

CREATE TABLE hosts (
    id           TEXT PRIMARY KEY,
    capabilities TEXT NOT NULL,
    seen_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    id         TEXT PRIMARY KEY,
    host_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    -- The last status that the host reported, and its message.
    status     TEXT NOT NULL,
    message    TEXT,
    -- How far the bridge has brought it: see bridge/tasks.py.
    phase      TEXT NOT NULL,
    -- What taskUp is called with; NULL for a task that was exposed on its host.
    spec       TEXT,
    prompt     TEXT,
    previews   TEXT NOT NULL DEFAULT '[]',
    has_editor INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;

-- Every event but the fleeting ones, in the order in which they arrived.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    host_id  TEXT NOT NULL,
    host_seq INTEGER,
    at       INTEGER NOT NULL,
    task_id  TEXT NOT NULL,
    type     TEXT NOT NULL,
    body     TEXT NOT NULL,
    -- A host whose data was wiped counts from 1 again, so `at` is part of what makes a repeat.
    UNIQUE (host_id, host_seq, at)
) STRICT;

CREATE INDEX events_of_task ON events (task_id, id);

-- Commands that have no result yet; they are sent again when their host connects.
CREATE TABLE commands (
    id         TEXT PRIMARY KEY,
    host_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    args       TEXT NOT NULL,
    task_id    TEXT,
    created_at INTEGER NOT NULL
) STRICT;
