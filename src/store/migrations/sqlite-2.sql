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

-- Changes that were heard of before: `written` is an id then, all in capitals, and not a name. What
-- leads to the same newest id, by one step or by several, is one channel. The order in which its ids
-- came was not kept: the one with the oldest message is the first, since alerts are named by it.
WITH RECURSIVE links AS (
    SELECT app, written AS old, id AS new FROM channel_ids
    WHERE length(written) >= 7 AND written GLOB '[CDG]*' AND written NOT GLOB '*[^A-Z0-9]*'
        AND written <> id),
reached (app, channel, id, steps) AS (
    SELECT app, old, new, 1 FROM links
    UNION
    SELECT r.app, r.channel, l.new, r.steps + 1
    FROM reached r JOIN links l ON l.app = r.app AND l.old = r.id WHERE r.steps < 16),
ended AS (
    SELECT app, channel, coalesce(
        max(CASE WHEN (app, id) NOT IN (SELECT app, old FROM links) THEN id END),
        min(id)) AS newest
    FROM reached GROUP BY app, channel),
members AS (
    SELECT app, channel, newest FROM ended UNION SELECT app, newest, newest FROM ended),
known AS (
    SELECT m.app, m.channel, m.newest, m.channel = m.newest AS is_newest,
        (SELECT min(a.ts) FROM channels c JOIN alerts a ON a.channel = c.id
         WHERE c.app = m.app AND c.channel = m.channel) AS since
    FROM members m)
INSERT OR IGNORE INTO chains (app, channel, first, place)
SELECT app, channel, first_value(channel) OVER ids, row_number() OVER ids - 1 FROM known
WINDOW ids AS (PARTITION BY app, newest ORDER BY is_newest, since IS NULL, since, channel);
-- What operators did, from the API.
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    selection TEXT NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
-- When the history of a channel was first to be read, by an id or a configured name of the channel:
-- nothing from before `first_lookback` before that is read by itself. `is_sure` is 0 while Slack had
-- not confirmed the time.
CREATE TABLE beginnings (
    app TEXT NOT NULL,
    written TEXT NOT NULL,
    at INTEGER NOT NULL,
    is_sure INTEGER NOT NULL,
    PRIMARY KEY (app, written)
) STRICT, WITHOUT ROWID;
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
-- Messages that may hold incidents and are not alerts. `key` is that of the message, `reason` a word.
CREATE TABLE near_misses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    reason TEXT NOT NULL,
    posted_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    team TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    summary TEXT NOT NULL,
    adopted INTEGER NOT NULL DEFAULT 0,
    read INTEGER NOT NULL DEFAULT 0,
    raw BLOB NOT NULL CHECK (length(raw) <= 16777216)
) STRICT;
-- Whether an operator has seen the body.
ALTER TABLE quarantine ADD COLUMN read INTEGER NOT NULL DEFAULT 0;
