-- What an agent's session needs to go on after faults, usage limits and crashes in the middle of a turn.

-- The words of its running turn, or of the last one that could not be ended; NULL: nothing to try again.
ALTER TABLE channel_agents ADD COLUMN doing TEXT;
-- Who those words are from: user:<author>, agent:<id> or system.
ALTER TABLE channel_agents ADD COLUMN origin TEXT NOT NULL DEFAULT 'system';
-- What becomes of them once it takes prompts: nothing (''), they are said 'again', or it is told to 'continue'.
ALTER TABLE channel_agents ADD COLUMN pending TEXT NOT NULL DEFAULT '';
-- 1 from the beginning of a turn until its end has been told, however often its process dies meanwhile.
ALTER TABLE channel_agents ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
-- How often that turn has lost its process, and how often it has met a usage limit.
ALTER TABLE channel_agents ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel_agents ADD COLUMN parks INTEGER NOT NULL DEFAULT 0;
-- How many tools it has used in the turn, and its last whole message of it.
ALTER TABLE channel_agents ADD COLUMN tools INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channel_agents ADD COLUMN answer TEXT NOT NULL DEFAULT '';
-- Milliseconds since the epoch until which it has no quota; NULL: it has.
ALTER TABLE channel_agents ADD COLUMN parked_until INTEGER;
-- The kind of the fault that ended its last turn, '' for none.
ALTER TABLE channel_agents ADD COLUMN fault TEXT NOT NULL DEFAULT '';
-- JSON lists: its own names of the requests it waits for; kinds of lines that this process was told about.
ALTER TABLE channel_agents ADD COLUMN asked TEXT NOT NULL DEFAULT '[]';
ALTER TABLE channel_agents ADD COLUMN odd TEXT NOT NULL DEFAULT '[]';
-- 1: it runs with an account that has changed, and starts anew when its turn is over.
ALTER TABLE channel_agents ADD COLUMN stale INTEGER NOT NULL DEFAULT 0;

ALTER TABLE channel_queue ADD COLUMN origin TEXT NOT NULL DEFAULT 'system';
-- 1: `{{name}}` in the line stands for a secret that is filled in as it leaves; 2: for a fresh one.
ALTER TABLE channel_lines ADD COLUMN secret INTEGER NOT NULL DEFAULT 0;

UPDATE channel_agents SET
    asked = (
        SELECT json_group_array(p.asked_as) FROM channel_permissions AS p
        WHERE p.task_id = channel_agents.task_id AND p.agent_id = channel_agents.agent_id
            AND p.decision IS NULL
    ),
    begun = state IN ('busy', 'awaiting', 'interrupting'),
    pending = CASE WHEN state IN ('busy', 'awaiting', 'interrupting') THEN 'again' ELSE '' END,
    doing = (
        SELECT l.prompt FROM channel_lines AS l
        WHERE l.task_id = channel_agents.task_id AND l.agent_id = channel_agents.agent_id
            AND l.prompt IS NOT NULL
    );
