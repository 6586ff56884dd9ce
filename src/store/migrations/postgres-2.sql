-- Layout 2 adds to layout 1; `postgres-1.sql` explains the numbers.

-- What operators did, from the API.
CREATE TABLE relay.actions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at int8 NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    selection text NOT NULL,
    changed int8 NOT NULL
);
-- `seen` is the newest message of a channel that catch-up really saw, whatever the clocks showed.
ALTER TABLE relay.cursors ADD COLUMN seen int8;

UPDATE relay.layout SET version = 2;
