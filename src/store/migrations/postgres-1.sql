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
CREATE INDEX messages_kept ON relay.messages (received_at, id) WHERE raw IS NOT NULL;

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
