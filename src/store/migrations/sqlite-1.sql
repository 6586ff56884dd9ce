-- Times are microseconds since 1970. A row's number is built so that one B-tree serves several
-- look-ups: the alerts of a message have the numbers `messages.id` .. `+ messages.alerts - 1`, the
-- deliveries of an alert have the numbers `seq * 65536 + destination`. New rows go to the end.

CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    UNIQUE (app, channel)
) STRICT;

-- Messages that brought an alert which was not known, as they were received. `raw` is NULL once
-- retention has removed it.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    alerts INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    posted_at INTEGER NOT NULL,
    source INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    team TEXT NOT NULL,
    raw BLOB CHECK (length(raw) <= 16777216)
) STRICT;

-- Edited forms of known messages. `edited_ts` is Slack's timestamp of the edit, or empty.
CREATE TABLE revisions (
    id INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    edited_ts TEXT NOT NULL,
    raw BLOB NOT NULL CHECK (length(raw) <= 16777216)
) STRICT;
CREATE INDEX revisions_message ON revisions (message);

-- Alerts. `ts` is an integer, or the digest of a message without a timestamp; bit n of `sources`
-- says that source n brought the message. `search` is NULL once retention has removed the message:
-- only the identity is left.
CREATE TABLE alerts (
    seq INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    ts ANY NOT NULL,
    ordinal INTEGER NOT NULL,
    message INTEGER NOT NULL,
    attachment INTEGER NOT NULL,
    sources INTEGER NOT NULL,
    level TEXT NOT NULL,
    search TEXT,
    UNIQUE (channel, ts, ordinal)
) STRICT;

-- Destinations. Each has a clock that stands still while the destination is paused and shows
-- `coalesce(paused_at, now) - paused_for`. `numbered` is the highest number in the destination's
-- feed.
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 0 AND 65535),
    name TEXT NOT NULL UNIQUE,
    paused_at INTEGER,
    paused_for INTEGER NOT NULL DEFAULT 0,
    numbered INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Deliveries. `state`: 0 pending, 1 delivered, 2 dead, 3 cancelled. `since` is a time of the
-- destination's clock. `number` is the position in the destination's feed, given when a reader
-- first asks.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    since INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    alert_faults INTEGER NOT NULL DEFAULT 0,
    finished_at INTEGER,
    dead_reason TEXT,
    reference_id TEXT,
    reference_url TEXT,
    number INTEGER
) STRICT;
CREATE INDEX deliveries_due ON deliveries (destination, due_at) WHERE state = 0;
CREATE INDEX deliveries_ended ON deliveries (destination, state) WHERE state >= 2;
CREATE INDEX deliveries_numbered ON deliveries (destination, state, number)
    WHERE number IS NOT NULL;

CREATE TABLE attempts (
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    class TEXT NOT NULL,
    status INTEGER,
    excerpt TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    app TEXT NOT NULL,
    channel TEXT NOT NULL,
    ts INTEGER NOT NULL,
    term INTEGER NOT NULL,
    PRIMARY KEY (app, channel)
) STRICT, WITHOUT ROWID;

-- Ids of channels by the text in the configuration: a name, or an id that Slack has replaced.
CREATE TABLE channel_ids (
    app TEXT NOT NULL,
    written TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (app, written)
) STRICT, WITHOUT ROWID;

-- Messages that catch-up has found before any push, until they are old enough to be counted.
CREATE TABLE unpushed (
    channel INTEGER NOT NULL,
    ts ANY NOT NULL,
    posted_at INTEGER NOT NULL,
    UNIQUE (channel, ts)
) STRICT;

-- The newest bodies that could not be parsed.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- A number that is incremented to prove that a write becomes durable.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    number INTEGER NOT NULL
) STRICT;
