-- Layout 2 adds to layout 1; `postgres-1.sql` explains the numbers.

-- The ids that a channel has had. Those with the same `first` are one channel's, oldest first by
-- `place`; an id that Slack never changed is not here. Whoever changes them holds the advisory lock
-- 5071129380421576193 alone; whoever takes messages in shares it.
CREATE TABLE relay.chains (
    app text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    first text COLLATE "C" NOT NULL,
    place int4 NOT NULL,
    PRIMARY KEY (app, channel)
);

-- Changes that were heard of before: `written` is an id then, all in capitals, and not a name. What
-- leads to the same newest id, by one step or by several, is one channel. The order in which its ids
-- came was not kept: the one with the oldest message is the first, since alerts are named by it.
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

-- A message's keys under all ids of its channel, if Slack ever changed it.
CREATE FUNCTION relay.keys_of(given text) RETURNS TABLE (key text, place int4)
    LANGUAGE sql STABLE AS $$
    SELECT o.app || ':' || o.channel || ':' || split_part(given, ':', 3), o.place
    FROM relay.chains c JOIN relay.chains o ON o.app = c.app AND o.first = c.first
    WHERE c.app = split_part(given, ':', 1) AND c.channel = split_part(given, ':', 2) $$;

-- The key under which each message is known, be it under another id of its channel: its own if
-- that is known, else that of the oldest id that is. Of a new one, the key under the first id.
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

-- As before, but it also leaves messages alone whose channel has had another id.
CREATE OR REPLACE FUNCTION relay.accept(given int8,
    received_at int8[], posted_at int8[], source int4[], event_id text[], team text[], raw bytea[],
    message int4[], place int8[], key text[], ordinal int8[], attachment int8[], level text[],
    search text[],
    destination int4[], name text[],
    alert int4[], target int4[], hold int8[],
    notify text[]) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
DECLARE
    now int8 := relay.now_us(given);
    id int8[] := ARRAY(
        SELECT nextval('relay.message_id') FROM generate_series(1, cardinality(raw)));
    since int8[] := ARRAY(
        SELECT coalesce(t.paused_at, now) - t.paused_for
        FROM unnest(destination, name) WITH ORDINALITY AS d (id, name, place)
        LEFT JOIN relay.destinations t ON t.id = d.id AND t.name = d.name ORDER BY d.place);
BEGIN
    -- Nobody changes a chain until this commits. Each statement sees what was committed before it.
    -- In this form the lock costs half of what PERFORM does: 2 us for all of it, without chains.
    IF pg_advisory_xact_lock_shared(5071129380421576193) IS NULL THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM relay.chains) THEN
        IF EXISTS (
            SELECT FROM unnest(key) AS k (key) JOIN relay.chains c
                ON c.app = split_part(k.key, ':', 1) AND c.channel = split_part(k.key, ':', 2))
        THEN
            RETURN false;
        END IF;
    END IF;

    INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
    SELECT id[a.message] * 4096 + a.place, a.key, a.ordinal, a.attachment,
        1 << source[a.message], a.level, a.search
    FROM (SELECT unnest(message) AS message, unnest(place) AS place, unnest(key) AS key,
            unnest(ordinal) AS ordinal, unnest(attachment) AS attachment,
            unnest(level) AS level, unnest(search) AS search) AS a;

    INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
    SELECT unnest(id), unnest(received_at), unnest(posted_at), unnest(source), unnest(event_id),
        unnest(team), unnest(raw);

    INSERT INTO relay.deliveries (id, destination, due_at, since)
    SELECT (id[message[d.alert]] * 4096 + place[d.alert]) * 65536 + destination[d.target],
        destination[d.target], now + d.hold, since[d.target]
    FROM (SELECT unnest(alert) AS alert, unnest(target) AS target, unnest(hold) AS hold) AS d;

    IF cardinality(notify) > 0 THEN
        PERFORM pg_notify('relay_due', unnest(notify));
    END IF;
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    -- Nothing was written, so there is nothing to flush or to wait for a standby with.
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN false;
END $$;
-- What operators did, from the API.
CREATE TABLE relay.actions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at int8 NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    selection text NOT NULL,
    changed int8 NOT NULL
);
-- When the history of a channel was first to be read, by an id or a configured name of the channel:
-- nothing from before `first_lookback` before that is read by itself. `is_sure` is false while Slack
-- had not confirmed the time.
CREATE TABLE relay.beginnings (
    app text NOT NULL,
    written text NOT NULL,
    at int8 NOT NULL,
    is_sure bool NOT NULL,
    PRIMARY KEY (app, written)
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

-- The bots that have posted incidents. `last` is when the newest of them was received.
CREATE TABLE relay.posters (
    app text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    bot_id text COLLATE "C" NOT NULL,
    app_id text COLLATE "C" NOT NULL,
    incidents int8 NOT NULL,
    last int8 NOT NULL,
    PRIMARY KEY (app, channel, bot_id, app_id)
);
-- `paused_until` is when a pause ends by itself, `pause_length` after how long that was to be: an end
-- further away than that is the work of a clock that has been set back since.
ALTER TABLE relay.destinations
    ADD COLUMN paused_until int8,
    ADD COLUMN pause_length int8,
    ADD COLUMN pause_reason text NOT NULL DEFAULT '';

-- Messages that may hold incidents and are not alerts. `key` is that of the message, `reason` a word.
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
-- Whether an operator has seen the body.
ALTER TABLE relay.quarantine ADD COLUMN read bool NOT NULL DEFAULT false;

UPDATE relay.layout SET version = 2;
