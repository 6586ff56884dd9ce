-- Times are microseconds since 1970. Names such as `:PENDING` stand for the numbers in
-- `src/store/sql.rs`. Rows are numbered so that one B-tree serves several look-ups: the alerts of a
-- message have the numbers `messages.id * :PER_MESSAGE + 0, 1, ...`, the deliveries of an alert the
-- numbers `seq * :PER_ALERT + destination`. Text that is compared has the collation "C" (byte by
-- byte), so that a change of the system's collations cannot corrupt an index.

-- Returns the time of the database's clock, or the given time.
CREATE FUNCTION relay.now_us(given int8) RETURNS int8 LANGUAGE sql VOLATILE
    AS 'SELECT coalesce(given, (extract(epoch FROM clock_timestamp()) * 1000000)::int8)';

CREATE SEQUENCE relay.message_id;

-- Messages that brought an alert which was not known, as they were received. `raw` is NULL once
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

-- Edited forms of known messages. `edited_ts` is Slack's timestamp of the edit, or empty.
CREATE TABLE relay.revisions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message int8 NOT NULL,
    received_at int8 NOT NULL,
    edited_ts text NOT NULL,
    raw bytea NOT NULL
);
CREATE INDEX revisions_message ON relay.revisions (message);

-- Alerts. `key` is the key of the message; bit n of `sources` says that source n brought the
-- message. `search` is NULL once retention has removed the message: only the identity is left.
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

-- Destinations. Each has a clock that stands still while the destination is paused and shows
-- `coalesce(paused_at, now) - paused_for`. `numbered` is the highest number in the destination's
-- feed. The numbers fit below `:PER_ALERT`.
CREATE TABLE relay.destinations (
    id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (id >= 0 AND id < :PER_ALERT),
    name text COLLATE "C" NOT NULL UNIQUE,
    paused_at int8,
    paused_for int8 NOT NULL DEFAULT 0,
    numbered int8 NOT NULL DEFAULT 0
);

-- Deliveries. `since` is a time of the destination's clock. A pending delivery is leased until
-- `leased_until` by the holder of `token`. Neither column is in an index, so a claim updates the
-- row in place. `number` is the position in the destination's feed, given when a reader first asks.
CREATE TABLE relay.deliveries (
    id int8 PRIMARY KEY,
    destination int4 NOT NULL,
    state int2 NOT NULL DEFAULT :PENDING,
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
CREATE INDEX deliveries_due ON relay.deliveries (destination, due_at, id) WHERE state = :PENDING;
CREATE INDEX deliveries_ended ON relay.deliveries (destination, state, id) WHERE state >= :DEAD;
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

-- Ids of channels by the text in the configuration: a name, or an id that Slack has replaced.
CREATE TABLE relay.channel_ids (
    app text COLLATE "C" NOT NULL,
    written text COLLATE "C" NOT NULL,
    id text NOT NULL,
    PRIMARY KEY (app, written)
);

-- Messages that catch-up has found before any push, until they are old enough to be counted.
CREATE TABLE relay.unpushed (
    key text COLLATE "C" PRIMARY KEY,
    app text COLLATE "C" NOT NULL,
    channel text NOT NULL,
    posted_at int8 NOT NULL
);

-- The process that has the right to poll Slack for an app, the term, and the end of the right.
CREATE TABLE relay.pollers (
    app text COLLATE "C" PRIMARY KEY,
    holder int8 NOT NULL,
    term int8 NOT NULL,
    ends_at int8 NOT NULL
);

-- The newest bodies that could not be parsed.
CREATE TABLE relay.quarantine (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text NOT NULL,
    received_at int8 NOT NULL,
    body bytea NOT NULL
);

-- A number that is incremented to prove that a write becomes durable.
CREATE TABLE relay.probe (
    id int4 PRIMARY KEY CHECK (id = 0),
    number int8 NOT NULL
);

CREATE TABLE relay.layout (version int4 NOT NULL);
INSERT INTO relay.layout (version) VALUES (1);
