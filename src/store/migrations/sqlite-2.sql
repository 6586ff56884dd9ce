-- Layout 2 adds to layout 1; `sqlite-1.sql` explains the numbers.

-- What operators did, from the API.
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    selection TEXT NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
-- `seen` is the newest message of a channel that catch-up really saw, whatever the clocks showed.
ALTER TABLE cursors ADD COLUMN seen INTEGER;
