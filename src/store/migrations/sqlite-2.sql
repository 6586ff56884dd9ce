-- Layout 2 adds to layout 1; `sqlite-1.sql` explains the numbers.

-- The ids that a channel has had. Those with the same `first` are one channel's, oldest first by
-- `place`; an id that Slack never changed is not here.
CREATE TABLE chains (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    first TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (app, channel)
) STRICT, WITHOUT ROWID;

-- Changes that were heard of before: `written` is an id then, all in capitals, and not a name.
WITH changed AS (
    SELECT app, id, written AS channel, 0 AS is_newest FROM channel_ids
    WHERE length(written) >= 7 AND written GLOB '[CDG]*' AND written NOT GLOB '*[^A-Z0-9]*'
        AND written <> id
    UNION
    SELECT app, id, id, 1 FROM channel_ids
    WHERE length(written) >= 7 AND written GLOB '[CDG]*' AND written NOT GLOB '*[^A-Z0-9]*'
        AND written <> id)
INSERT OR IGNORE INTO chains (app, channel, first, place)
SELECT app, channel, first_value(channel) OVER ids, row_number() OVER ids - 1 FROM changed
WINDOW ids AS (PARTITION BY app, id ORDER BY is_newest, channel);
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
-- `wait` is how long the delivery was to wait when `due_at` was set: a `due_at` further away than
-- that is the work of a clock that has been set back since. `because` says what it waits for: 0 a
-- destination at fault, 1 the time that the destination asked for, 2 the next try after a refusal.
-- `accepted`: the destination has accepted another alert since this one was first refused.
-- `evidence` counts the refusals of requests that began after that. They begin anew with
-- `alert_faults`, the number of refusals.
ALTER TABLE deliveries ADD COLUMN wait INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN because INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN evidence INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_refused ON deliveries (destination, accepted, alert_faults)
    WHERE state = 0 AND alert_faults > 0;

-- `settings` is a mark of the destination's settings and secrets, under which refusals are counted.
ALTER TABLE destinations ADD COLUMN settings INTEGER;
-- The bots that have posted incidents. `last` is when the newest of them was received.
CREATE TABLE posters (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    incidents INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (app, channel, bot_id, app_id)
) STRICT, WITHOUT ROWID;

-- `paused_until` is when a pause ends by itself, `pause_length` after how long that was to be: an end
-- further away than that is the work of a clock that has been set back since.
ALTER TABLE destinations ADD COLUMN paused_until INTEGER;
ALTER TABLE destinations ADD COLUMN pause_length INTEGER;
ALTER TABLE destinations ADD COLUMN pause_reason TEXT NOT NULL DEFAULT '';
