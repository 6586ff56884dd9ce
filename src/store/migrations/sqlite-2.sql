-- Layout 2 adds to layout 1; `sqlite-1.sql` explains the numbers.

-- `seen` is the newest message of a channel that catch-up really saw, whatever the clocks showed.
ALTER TABLE cursors ADD COLUMN seen INTEGER;
