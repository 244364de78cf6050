-- What is to be sent to the bridge, in order: events, and whole result frames.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('event', 'result')),
    payload BLOB NOT NULL,
    at INTEGER NOT NULL
);

-- Every command and its one result. args is there only while it is needed: until the command has ended.
-- result is NULL when the command has not ended (finished_at is NULL too), or was too large to keep.
CREATE TABLE commands (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    args BLOB,
    received_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    result BLOB,
    finished_at INTEGER
);

CREATE INDEX commands_unfinished ON commands (seq) WHERE finished_at IS NULL;
CREATE INDEX commands_finished ON commands (finished_at) WHERE finished_at IS NOT NULL;

-- input: the argument of taskUp, kept while the task may have to be started again.
-- ran: its container was up with the work copies that are there, so that they may hold work.
-- saved: what taskDown put away; NULL while there may be work that is not.
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL,
    branch TEXT NOT NULL,
    status TEXT NOT NULL,
    message TEXT,
    input BLOB,
    ran INTEGER NOT NULL,
    saved BLOB,
    updated_at INTEGER NOT NULL
);

-- Where a task's container ports are reached on 127.0.0.1; the editor's row has the target 'editor'.
CREATE TABLE ports (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    target TEXT NOT NULL CHECK (target IN ('editor', 'preview')),
    name TEXT NOT NULL,
    container_port INTEGER NOT NULL,
    host_port INTEGER NOT NULL,
    PRIMARY KEY (task_id, target, name)
);

-- Tasks without a container: ports that are already served on this machine.
CREATE TABLE exposed (
    task_id TEXT NOT NULL,
    name TEXT NOT NULL,
    port INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (task_id, name)
);
