-- What people have decided for a task, what a crew has used, and who reviews.

-- JSON object of a question's text to what was chosen; NULL: none were asked.
ALTER TABLE channel_permissions ADD COLUMN answers TEXT;
-- task: the decision counts for every later use of the tool in the task.
ALTER TABLE channel_permissions ADD COLUMN scope TEXT NOT NULL DEFAULT 'once';
-- When nobody's decision becomes a decline, milliseconds since the epoch; NULL: never.
ALTER TABLE channel_permissions ADD COLUMN expires_at INTEGER;
-- 1: the process that asked is gone; whoever asks exactly the same again is bound to this row.
ALTER TABLE channel_permissions ADD COLUMN orphaned INTEGER NOT NULL DEFAULT 0;
-- 1: the agent has been told the decision, or nobody waits for it any more.
ALTER TABLE channel_permissions ADD COLUMN told INTEGER NOT NULL DEFAULT 0;
UPDATE channel_permissions SET told = 1 WHERE decision IS NOT NULL;

-- Tools that agents of a task use without asking.
CREATE TABLE channel_rules (
    task_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    at INTEGER NOT NULL,                -- milliseconds since the epoch
    PRIMARY KEY (task_id, tool)
) STRICT;

-- What each agent has used of its account in the task.
CREATE TABLE channel_usage (
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL,                      -- NULL where no agent tells it
    PRIMARY KEY (task_id, agent_id)
) STRICT;

-- Files that people gave to the task and that no message has named yet.
CREATE TABLE channel_attached (
    task_id TEXT NOT NULL,
    path TEXT NOT NULL,                 -- inside the container
    size INTEGER NOT NULL,              -- bytes
    PRIMARY KEY (task_id, path)
) STRICT;

-- JSON of channel.governor.Spent and channel.reviews.Round; '' for their beginnings.
ALTER TABLE channels ADD COLUMN spent TEXT NOT NULL DEFAULT '';
ALTER TABLE channels ADD COLUMN review TEXT NOT NULL DEFAULT '';

-- Who reviews in which task, in order: a JSON list of agent ids. It is known before the channel is.
CREATE TABLE channel_reviewers (
    task_id TEXT PRIMARY KEY,
    reviewers TEXT NOT NULL
) STRICT;
