-- What the task waits for, as its host last said: JSON of {reason, text, since, percent?, deadline?}.
ALTER TABLE tasks ADD COLUMN waiting TEXT;
