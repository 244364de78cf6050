-- The channels of tasks: crew, messages, queued words, lines for agents, permissions.
-- Task ids stand here by themselves: a channel's history outlives its task.

CREATE TABLE channels (
    task_id TEXT PRIMARY KEY,
    open INTEGER NOT NULL,              -- 0 after teardown
    cwd TEXT NOT NULL,                  -- where the agents work, inside the container
    hops_left INTEGER NOT NULL          -- agent-to-agent deliveries until a person speaks again
) STRICT;

CREATE TABLE channel_agents (
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    present INTEGER NOT NULL,           -- 0 when it has left the crew
    label TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT,
    instructions TEXT NOT NULL,
    state TEXT NOT NULL,
    run TEXT,                           -- the process whose output `cursor` counts
    cursor INTEGER NOT NULL,            -- bytes of output that have taken effect
    next_line INTEGER NOT NULL,         -- the number of the next line for its stdin
    session_id TEXT,
    memory TEXT NOT NULL,
    answer_id TEXT NOT NULL,            -- the id of the message it is writing
    partial TEXT NOT NULL,              -- what it has said of that message
    PRIMARY KEY (task_id, agent_id)
) STRICT;

CREATE TABLE channel_messages (
    task_id TEXT NOT NULL,
    seq INTEGER NOT NULL,               -- 1, 2, 3 in each task
    message_id TEXT NOT NULL,
    at INTEGER NOT NULL,                -- milliseconds since the epoch
    author_kind TEXT NOT NULL,
    author_id TEXT NOT NULL,
    author_label TEXT NOT NULL,
    text TEXT NOT NULL,
    routed_to TEXT NOT NULL,            -- JSON list of agent ids
    PRIMARY KEY (task_id, seq),
    UNIQUE (task_id, message_id)
) STRICT;

CREATE TABLE channel_partners (
    task_id TEXT NOT NULL,
    author_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,             -- whom the author spoke with last
    PRIMARY KEY (task_id, author_id)
) STRICT;

CREATE TABLE channel_queue (
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (task_id, agent_id, position)
) STRICT;

CREATE TABLE channel_lines (
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    line BLOB NOT NULL,
    prompt TEXT,                        -- the queued text, if the line begins a turn
    PRIMARY KEY (task_id, agent_id, number)
) STRICT;

CREATE TABLE channel_permissions (
    task_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    request_id TEXT NOT NULL,           -- as people see it; never used twice
    asked_as TEXT NOT NULL,             -- as the agent knows it
    at INTEGER NOT NULL,
    tool TEXT NOT NULL,
    title TEXT NOT NULL,
    input TEXT NOT NULL,                -- JSON
    input_hash TEXT NOT NULL,           -- SHA-256 of tool and input
    decision TEXT,                      -- accept or decline, once
    decided_by TEXT,
    decided_at INTEGER,
    PRIMARY KEY (task_id, agent_id, request_id)
) STRICT;
