-- Layout 2 adds to layout 1; `postgres-1.sql` explains numbers and names.

-- Ids of channels whose id Slack has changed. Ids with the same `first` belong to one channel and
-- are ordered by `place`, oldest first. A change of this table holds the advisory lock
-- 5071129380421576193 exclusively; an accept shares the lock.
CREATE TABLE relay.chains (
    app text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    first text COLLATE "C" NOT NULL,
    place int4 NOT NULL,
    PRIMARY KEY (app, channel)
);

-- Changes that layout 1 knew of: there `written` is an id (in capitals) instead of a name. All ids
-- that lead to the same newest id, in one step or several, belong to one channel. Their order was
-- not stored: the id with the oldest message becomes the first, since alerts are named by it.
WITH RECURSIVE links AS (
    SELECT app, written AS old, id COLLATE "C" AS new FROM relay.channel_ids
    WHERE written ~ '^[CDG][A-Z0-9]{6,}$' AND written <> id COLLATE "C"),
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
        (SELECT split_part(min(a.key), ':', 3) FROM relay.alerts a
         WHERE a.key >= m.app || ':' || m.channel || ':'
            AND a.key < m.app || ':' || m.channel || ';') COLLATE "C" AS since
    FROM members m)
INSERT INTO relay.chains (app, channel, first, place)
SELECT app, channel, first_value(channel) OVER ids, row_number() OVER ids - 1 FROM known
WINDOW ids AS (PARTITION BY app, newest ORDER BY is_newest, since IS NULL, since, channel)
ON CONFLICT DO NOTHING;

-- Returns the keys of a message under all ids of its channel; none if Slack never changed the id.
CREATE FUNCTION relay.keys_of(given text) RETURNS TABLE (key text, place int4)
    LANGUAGE sql STABLE AS $$
    SELECT o.app || ':' || o.channel || ':' || split_part(given, ':', 3), o.place
    FROM relay.chains c JOIN relay.chains o ON o.app = c.app AND o.first = c.first
    WHERE c.app = split_part(given, ':', 1) AND c.channel = split_part(given, ':', 2) $$;

-- Returns the key under which each message is known: its own, else the one under the oldest id of
-- its channel that is known. A new message gets the key under the channel's first id.
CREATE FUNCTION relay.identify(keys text[]) RETURNS text[] LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(5071129380421576193);
    IF NOT EXISTS (SELECT FROM relay.chains) THEN
        RETURN keys;
    END IF;
    RETURN ARRAY(
        SELECT CASE WHEN EXISTS (SELECT FROM relay.alerts a WHERE a.key = k.key) THEN k.key
            ELSE coalesce(
                (SELECT c.key FROM relay.keys_of(k.key) AS c
                 WHERE EXISTS (SELECT FROM relay.alerts a WHERE a.key = c.key)
                 ORDER BY c.place LIMIT 1),
                (SELECT c.key FROM relay.keys_of(k.key) AS c ORDER BY c.place LIMIT 1),
                k.key) END
        FROM unnest(keys) WITH ORDINALITY AS k (key, place) ORDER BY k.place);
END $$;

-- The journal of operators' actions.
CREATE TABLE relay.actions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at int8 NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    selection text NOT NULL,
    changed int8 NOT NULL
);
-- Time at which the history of a channel was first to be read, by an id or the configured name of
-- the channel. Catch-up does not read further back than `first_lookback` before that time.
-- `is_sure` is false until Slack has confirmed the time.
CREATE TABLE relay.beginnings (
    app text NOT NULL,
    written text NOT NULL,
    at int8 NOT NULL,
    is_sure bool NOT NULL,
    PRIMARY KEY (app, written)
);
-- `seen` is the newest message that catch-up has found in the channel, whatever the clocks showed.
ALTER TABLE relay.cursors ADD COLUMN seen int8;
-- `wait` is the wait that was decided when `due_at` was set: if `due_at` is further away than that,
-- the clock has been set back since. `because` is the reason to wait: 0 the destination was at
-- fault, 1 the destination asked for the time, 2 the alert was refused. `accepted`: the destination
-- has accepted another alert since this one was first refused. `evidence` counts the refusals of
-- requests that began after that acceptance. Both are reset with `alert_faults`, the number of
-- refusals.
ALTER TABLE relay.deliveries
    ADD COLUMN wait int8 NOT NULL DEFAULT 0,
    ADD COLUMN because int2 NOT NULL DEFAULT :DESTINATION_FAULT,
    ADD COLUMN accepted bool NOT NULL DEFAULT false,
    ADD COLUMN evidence int4 NOT NULL DEFAULT 0;
CREATE INDEX deliveries_refused ON relay.deliveries (destination, accepted, alert_faults)
    WHERE state = :PENDING AND alert_faults > 0;

-- `settings` is a mark of the destination's settings and secrets. When it changes, the counts of
-- refusals are reset.
ALTER TABLE relay.destinations ADD COLUMN settings int8;

-- Bots that have posted incidents. `last` is the time at which the newest incident was received.
CREATE TABLE relay.posters (
    app text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    bot_id text COLLATE "C" NOT NULL,
    app_id text COLLATE "C" NOT NULL,
    incidents int8 NOT NULL,
    last int8 NOT NULL,
    PRIMARY KEY (app, channel, bot_id, app_id)
);
-- `paused_until` is the time at which a pause ends by itself, `pause_length` the length that was
-- asked for: if the end is further away than that, the clock has been set back since.
ALTER TABLE relay.destinations
    ADD COLUMN paused_until int8,
    ADD COLUMN pause_length int8,
    ADD COLUMN pause_reason text NOT NULL DEFAULT '';

-- Near misses. `key` is the key of the message, `reason` one word.
CREATE TABLE relay.near_misses (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    reason text NOT NULL,
    posted_at int8 NOT NULL,
    received_at int8 NOT NULL,
    event_id text NOT NULL,
    team text NOT NULL,
    bot_id text NOT NULL,
    app_id text NOT NULL,
    summary text NOT NULL,
    adopted bool NOT NULL DEFAULT false,
    read bool NOT NULL DEFAULT false,
    raw bytea NOT NULL
);
-- `read` is true once an operator has seen the body.
ALTER TABLE relay.quarantine ADD COLUMN read bool NOT NULL DEFAULT false;

UPDATE relay.layout SET version = 2;
