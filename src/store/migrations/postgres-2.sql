-- Layout 2 adds to layout 1; `postgres-1.sql` explains the numbers.

-- `seen` is the newest message of a channel that catch-up really saw, whatever the clocks showed.
ALTER TABLE relay.cursors ADD COLUMN seen int8;

UPDATE relay.layout SET version = 2;
