-- What was kept of tasks: a row for each work copy, and one with an empty slug for what a task held beside
-- them. It outlives the task's row. name: of its files in saved/<task_id>; project: an address, for people;
-- key: of the repository saved/<key>.git that has the branches branch and wip; extra: the path of the tar file
-- of what git does not keep, size: its bytes; parts: JSON, what was kept of the work copy and of each
-- repository inside it; at: milliseconds since the epoch.
CREATE TABLE saved (
    id INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    name TEXT NOT NULL,
    slug TEXT NOT NULL,
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    branch TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    wip TEXT,
    extra TEXT,
    note TEXT,
    parts BLOB NOT NULL,
    size INTEGER NOT NULL,
    at INTEGER NOT NULL,
    UNIQUE (task_id, name)
) STRICT;

-- What was removed to free disk, the newest last: class, as docs/recovery.md names it; recovery: how to get
-- it back; at: milliseconds since the epoch.
CREATE TABLE removals (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    class TEXT NOT NULL,
    what TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    why TEXT NOT NULL,
    recovery TEXT NOT NULL
) STRICT;
