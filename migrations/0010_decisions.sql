-- A decision on its way to an agent: when its process dies before it reads the line, the next one is told.

-- The request whose decision the line gives (channel_permissions.request_id); NULL: it gives none.
ALTER TABLE channel_lines ADD COLUMN request TEXT;
