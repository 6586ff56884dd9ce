-- Times are microseconds since 1970. A row's number is built so that one B-tree serves several
-- look-ups: the alerts of a message have the numbers `messages.id * 4096 + 0, 1, ...`, the
-- deliveries of an alert the numbers `seq * 65536 + destination`. Text that is compared is compared
-- byte by byte, so no change of the system's collations can disorder an index.

-- The database's clock, unless a time is given.
CREATE FUNCTION relay.now_us(given int8) RETURNS int8 LANGUAGE sql VOLATILE
    AS 'SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000)::int8)';

CREATE SEQUENCE relay.message_id;

-- A message as it was received, if it brought an alert that was not known. `raw` is NULL once
-- retention has removed it.
CREATE TABLE relay.messages (
    id int8 PRIMARY KEY,
    received_at int8 NOT NULL,
    posted_at int8 NOT NULL,
    source int4 NOT NULL,
    event_id text NOT NULL,
    team text NOT NULL,
    raw bytea
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);

-- Later versions of a message that brought nothing new. `edited_ts` is Slack's, or empty.
CREATE TABLE relay.revisions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message int8 NOT NULL,
    received_at int8 NOT NULL,
    edited_ts text NOT NULL,
    raw bytea NOT NULL
);
CREATE INDEX revisions_message ON relay.revisions (message);

-- The identities. `key` is the message's, `sources` a set of bits. `search` is NULL once retention
-- has removed the message.
CREATE TABLE relay.alerts (
    seq int8 PRIMARY KEY,
    key text COLLATE "C" NOT NULL,
    ordinal int8 NOT NULL,
    attachment int8 NOT NULL,
    sources int4 NOT NULL,
    level text COLLATE "C" NOT NULL,
    search text,
    UNIQUE (key, ordinal)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);

-- A destination's clock stands still while it is paused: it shows
-- `coalesce(paused_at, now) - paused_for`. `numbered` is the last number that its feed has given.
CREATE TABLE relay.destinations (
    id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (id BETWEEN 0 AND 65535),
    name text COLLATE "C" NOT NULL UNIQUE,
    paused_at int8,
    paused_for int8 NOT NULL DEFAULT 0,
    numbered int8 NOT NULL DEFAULT 0
);

-- `state`: 0 pending, 1 delivered, 2 dead, 3 cancelled. `since` is by the destination's clock. A
-- pending one is leased until `leased_until` by whoever knows `token`. Neither is in an index: a
-- claim changes one row in place. `number` is its place in the destination's feed, from when a
-- reader first found it.
CREATE TABLE relay.deliveries (
    id int8 PRIMARY KEY,
    destination int4 NOT NULL,
    state int2 NOT NULL DEFAULT 0,
    due_at int8 NOT NULL,
    since int8 NOT NULL,
    attempts int4 NOT NULL DEFAULT 0,
    alert_faults int4 NOT NULL DEFAULT 0,
    leased_until int8,
    token int8,
    finished_at int8,
    dead_reason text,
    reference_id text,
    reference_url text,
    number int8
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX deliveries_due ON relay.deliveries (destination, due_at, id) WHERE state = 0;
CREATE INDEX deliveries_ended ON relay.deliveries (destination, state, id) WHERE state >= 2;
CREATE INDEX deliveries_numbered ON relay.deliveries (destination, state, number)
    WHERE number IS NOT NULL;

-- Takes messages in that nobody has seen before, and returns true; if any alert is known it writes
-- nothing and returns false. The arrays up to `raw` have a row for each message, those from
-- `message` on one for each alert, `destination` and `name` have each destination once, and the
-- last arrays but `notify` have a row for each delivery; `message`, `alert` and `target` are places
-- among those messages, alerts and destinations, from 1. Alerts come in the order of their keys, in
-- which all transactions take them. A plain insert looks once for what is known, `ON CONFLICT`
-- twice; and of those that it waits for the first that commits ends it.
CREATE FUNCTION relay.accept(given int8,
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

CREATE TABLE relay.attempts (
    delivery int8 NOT NULL,
    number int4 NOT NULL,
    started_at int8 NOT NULL,
    duration int8 NOT NULL,
    class text NOT NULL,
    status int4,
    excerpt text NOT NULL,
    PRIMARY KEY (delivery, number)
);

CREATE TABLE relay.cursors (
    app text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    ts int8 NOT NULL,
    term int8 NOT NULL,
    PRIMARY KEY (app, channel)
);

-- The id behind what the configuration writes of a channel: a name, or an id that Slack replaced.
CREATE TABLE relay.channel_ids (
    app text COLLATE "C" NOT NULL,
    written text COLLATE "C" NOT NULL,
    id text NOT NULL,
    PRIMARY KEY (app, written)
);

-- Messages that catch-up has brought and no push yet, until they are old enough to be counted.
CREATE TABLE relay.unpushed (
    key text COLLATE "C" PRIMARY KEY,
    app text COLLATE "C" NOT NULL,
    channel text NOT NULL,
    posted_at int8 NOT NULL
);

-- Which process polls Slack for an app, until when, and under which term.
CREATE TABLE relay.pollers (
    app text COLLATE "C" PRIMARY KEY,
    holder int8 NOT NULL,
    term int8 NOT NULL,
    ends_at int8 NOT NULL
);

-- The newest bodies that could not be read.
CREATE TABLE relay.quarantine (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text NOT NULL,
    received_at int8 NOT NULL,
    body bytea NOT NULL
);

-- Counted up to prove that a write becomes durable.
CREATE TABLE relay.probe (
    id int4 PRIMARY KEY CHECK (id = 0),
    number int8 NOT NULL
);

CREATE TABLE relay.layout (version int4 NOT NULL);
INSERT INTO relay.layout (version) VALUES (1);
