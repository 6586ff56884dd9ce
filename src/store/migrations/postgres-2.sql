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
-- `wait` is how long the delivery was to wait when `due_at` was set: a `due_at` further away than
-- that is the work of a clock that has been set back since. `because` says what it waits for: 0 a
-- destination at fault, 1 the time that the destination asked for, 2 the next try after a refusal.
-- `accepted`: the destination has accepted another alert since this one was first refused.
-- `evidence` counts the refusals of requests that began after that. They begin anew with
-- `alert_faults`, the number of refusals.
ALTER TABLE relay.deliveries
    ADD COLUMN wait int8 NOT NULL DEFAULT 0,
    ADD COLUMN because int2 NOT NULL DEFAULT 0,
    ADD COLUMN accepted bool NOT NULL DEFAULT false,
    ADD COLUMN evidence int4 NOT NULL DEFAULT 0;
CREATE INDEX deliveries_refused ON relay.deliveries (destination, accepted, alert_faults)
    WHERE state = 0 AND alert_faults > 0;

-- `settings` is a mark of the destination's settings and secrets, under which refusals are counted.
ALTER TABLE relay.destinations ADD COLUMN settings int8;

UPDATE relay.layout SET version = 2;
