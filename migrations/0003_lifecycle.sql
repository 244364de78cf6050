-- Why a task does not move, how its container ended, what was seen of its isolation, its steps.
-- waiting: JSON {reason, text, since, percent?, deadline?}; NULL when it waits for nothing.
-- report: JSON of the isolation report of its last container.
-- ended: JSON {at, exitCode, outOfMemory, text}: the last end of its container that nobody asked for.
-- restarts: JSON list, milliseconds since the epoch: when it was started again unasked, the recent ones.
ALTER TABLE tasks ADD COLUMN waiting BLOB;
ALTER TABLE tasks ADD COLUMN report BLOB;
ALTER TABLE tasks ADD COLUMN ended BLOB;
ALTER TABLE tasks ADD COLUMN restarts BLOB NOT NULL DEFAULT x'5b5d';

-- The steps of the last attempts to bring a task up or down. elapsed_ms: NULL while it goes on.
CREATE TABLE task_steps (
    task_id TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('started', 'done', 'failed')),
    message TEXT,
    started_at INTEGER NOT NULL,
    elapsed_ms INTEGER,
    PRIMARY KEY (task_id, attempt, position)
);

-- What is known of this machine: `boot`, the id of the boot in which the daemon ran last.
CREATE TABLE machine (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
