-- Layout 2 adds to layout 1; `sqlite-1.sql` explains the numbers.

-- Ids of channels whose id Slack has changed. Ids with the same `first` belong to one channel and
-- are ordered by `place`, oldest first.
CREATE TABLE chains (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    first TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (app, channel)
) STRICT, WITHOUT ROWID;

-- Changes that layout 1 knew of: there `written` is an id (in capitals) instead of a name. All ids
-- that lead to the same newest id, in one step or several, belong to one channel. Their order was
-- not stored: the id with the oldest message becomes the first, since alerts are named by it.
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
-- The journal of operators' actions.
CREATE TABLE actions (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    selection TEXT NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
-- Time at which the history of a channel was first to be read, by an id or the configured name of
-- the channel. Catch-up does not read further back than `first_lookback` before that time.
-- `is_sure` is 0 until Slack has confirmed the time.
CREATE TABLE beginnings (
    app TEXT NOT NULL,
    written TEXT NOT NULL,
    at INTEGER NOT NULL,
    is_sure INTEGER NOT NULL,
    PRIMARY KEY (app, written)
) STRICT, WITHOUT ROWID;
-- `seen` is the newest message that catch-up has found in the channel, whatever the clocks showed.
ALTER TABLE cursors ADD COLUMN seen INTEGER;
-- `wait` is the wait that was decided when `due_at` was set: if `due_at` is further away than that,
-- the clock has been set back since. `because` is the reason to wait: 0 the destination was at
-- fault, 1 the destination asked for the time, 2 the alert was refused. `accepted`: the destination
-- has accepted another alert since this one was first refused. `evidence` counts the refusals of
-- requests that began after that acceptance. Both are reset with `alert_faults`, the number of
-- refusals.
ALTER TABLE deliveries ADD COLUMN wait INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN because INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN evidence INTEGER NOT NULL DEFAULT 0;
CREATE INDEX deliveries_refused ON deliveries (destination, accepted, alert_faults)
    WHERE state = 0 AND alert_faults > 0;

-- `settings` is a mark of the destination's settings and secrets. When it changes, the counts of
-- refusals are reset.
ALTER TABLE destinations ADD COLUMN settings INTEGER;
-- Bots that have posted incidents. `last` is the time at which the newest incident was received.
CREATE TABLE posters (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    bot_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    incidents INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (app, channel, bot_id, app_id)
) STRICT, WITHOUT ROWID;

-- `paused_until` is the time at which a pause ends by itself, `pause_length` the length that was
-- asked for: if the end is further away than that, the clock has been set back since.
ALTER TABLE destinations ADD COLUMN paused_until INTEGER;
ALTER TABLE destinations ADD COLUMN pause_length INTEGER;
ALTER TABLE destinations ADD COLUMN pause_reason TEXT NOT NULL DEFAULT '';
-- Near misses. `key` is the key of the message, `reason` one word.
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
-- `read` is 1 once an operator has seen the body.
ALTER TABLE quarantine ADD COLUMN read INTEGER NOT NULL DEFAULT 0;
