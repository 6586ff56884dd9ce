-- Functions of layout 2: created with the layout, and added to a database whose layout 2 was made
-- without them. Each statement must succeed if its function exists.

-- How rows are numbered.
CREATE OR REPLACE FUNCTION relay.alert_seq(message int8, place int8)
    RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT message * :PER_MESSAGE + place';
CREATE OR REPLACE FUNCTION relay.delivery_id(alert int8, destination int4)
    RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT alert * :PER_ALERT + destination';
CREATE OR REPLACE FUNCTION relay.message_of(alert int8)
    RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT alert / :PER_MESSAGE';

-- Stores a batch of messages in one call, whose plans the server keeps for each connection.
--
-- The arrays from `keys` to `holds` have an element for each message, those from `messages` to
-- `searches` one for each alert, `destinations` and `names` one for each destination, and `alerts`
-- and `targets` one for each delivery. `messages`, `alerts` and `targets` are subscripts of the
-- arrays of messages, alerts and destinations. `edit_times` is NULL for a message that is not an
-- edit. Returns for each alert whether it was new, and the subscripts of the messages that were
-- kept as revisions.
CREATE OR REPLACE FUNCTION relay.accept_batch(given int8,
    keys text[], received int8[], posted int8[], origins int4[], event_ids text[], teams text[],
    bodies bytea[], edit_times text[], holds int8[],
    messages int4[], places int8[], ordinals int8[], attachments int8[], levels text[],
    searches text[],
    destinations int4[], names text[],
    alerts int4[], targets int4[],
    revisions_kept int8, notifies bool,
    OUT new_alerts bool[], OUT revised int4[]) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    now int8 := relay.now_us(given);
    ids int8[] := ARRAY(
        SELECT nextval('relay.message_id') FROM generate_series(1, cardinality(keys)));
    starts int8[] := ARRAY(
        SELECT coalesce(t.paused_at, now) - t.paused_for
        FROM unnest(destinations, names) WITH ORDINALITY AS d (id, name, place)
        LEFT JOIN relay.destinations t ON t.id = d.id AND t.name = d.name ORDER BY d.place);
    identities text[];
    inserted int8;
    has_new bool[] := array_fill(true, ARRAY[cardinality(keys)]);
    has_known bool[] := array_fill(false, ARRAY[cardinality(keys)]);
    is_first bool;
    nth int4;
BEGIN
    -- Waits for a change of channel ids. Each statement below sees what was committed before it.
    identities := relay.identify(keys);

    -- The constraint decides what is known; of two messages with one key the first brings the
    -- alert. Every relay passes alerts in the order of their timestamps, so inserts rarely
    -- deadlock; a deadlock is retried.
    INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
    SELECT relay.alert_seq(ids[a.message], a.place), identities[a.message], a.ordinal,
        a.attachment, 1 << origins[a.message], a.level, a.search
    FROM (SELECT unnest(messages) AS message, unnest(places) AS place,
            unnest(ordinals) AS ordinal, unnest(attachments) AS attachment,
            unnest(levels) AS level, unnest(searches) AS search) AS a
    ON CONFLICT (key, ordinal) DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;

    new_alerts := array_fill(true, ARRAY[cardinality(messages)]);
    IF inserted < cardinality(messages) THEN
        has_new := array_fill(false, ARRAY[cardinality(keys)]);
        FOR a IN 1 .. cardinality(messages) LOOP
            -- An alert that was inserted has the number that was made for it here.
            new_alerts[a] := EXISTS (
                SELECT FROM relay.alerts n
                WHERE n.seq = relay.alert_seq(ids[messages[a]], places[a]));
            IF new_alerts[a] THEN
                has_new[messages[a]] := true;
            ELSE
                has_known[messages[a]] := true;
            END IF;
        END LOOP;
    END IF;

    INSERT INTO relay.messages (id, received_at, posted_at, source, event_id, team, raw)
    SELECT m.id, m.received_at, m.posted_at, m.source, m.event_id, m.team, m.raw
    FROM (SELECT unnest(ids) AS id, unnest(received) AS received_at, unnest(posted) AS posted_at,
            unnest(origins) AS source, unnest(event_ids) AS event_id, unnest(teams) AS team,
            unnest(bodies) AS raw, unnest(has_new) AS is_stored) AS m
    WHERE m.is_stored;

    -- A destination that has another number, or none, as after a restored backup, is an error:
    -- its `since` is NULL.
    INSERT INTO relay.deliveries (id, destination, due_at, since)
    SELECT relay.delivery_id(
            relay.alert_seq(ids[messages[d.alert]], places[d.alert]), destinations[d.target]),
        destinations[d.target], now + holds[messages[d.alert]], starts[d.target]
    FROM (SELECT unnest(alerts) AS alert, unnest(targets) AS target) AS d
    WHERE new_alerts[d.alert];

    IF notifies AND true = ANY (has_new) THEN
        PERFORM pg_notify('relay_due', unnest(names));
    END IF;

    revised := ARRAY[]::int4[];
    IF inserted = cardinality(messages) AND :CATCH_UP <> ALL (origins) THEN
        RETURN;
    END IF;
    -- Rows are locked in the order of their keys, the same in every relay.
    FOR nth IN
        SELECT n FROM generate_series(1, cardinality(keys)) AS n
        ORDER BY identities[n] COLLATE "C", n
    LOOP
        is_first := false;
        IF has_known[nth] THEN
            -- A lock is also something to commit: a known message may not be on the standby yet,
            -- and this commit waits until it is. Of two edits at once the second sees the first.
            PERFORM FROM relay.alerts a WHERE a.key = identities[nth]
                ORDER BY a.ordinal FOR NO KEY UPDATE;
            UPDATE relay.alerts a SET sources = a.sources | (1 << origins[nth])
                WHERE a.key = identities[nth] AND a.sources & (1 << origins[nth]) = 0;
            is_first := FOUND;
            IF origins[nth] = :PUSH THEN
                DELETE FROM relay.unpushed u WHERE u.key = identities[nth];
            END IF;
        END IF;
        IF origins[nth] = :CATCH_UP AND (NOT has_known[nth] OR (is_first AND NOT has_new[nth])) THEN
            INSERT INTO relay.unpushed (key, app, channel, posted_at)
            SELECT identities[nth], split_part(keys[nth], ':', 1), split_part(keys[nth], ':', 2),
                posted[nth]
            WHERE NOT EXISTS (
                SELECT FROM relay.alerts a
                WHERE a.key = identities[nth] AND a.sources & (1 << :PUSH) <> 0)
            ON CONFLICT (key) DO NOTHING;
        END IF;
        IF edit_times[nth] IS NOT NULL AND NOT has_new[nth]
            AND relay.keep_revision(identities[nth], received[nth], edit_times[nth], bodies[nth],
                revisions_kept)
        THEN
            revised := revised || nth;
        END IF;
    END LOOP;
END $$;

-- Relays of layout 1 that still run call this for messages that look new. False sends them to the
-- statements that look closer.
CREATE OR REPLACE FUNCTION relay.accept(given int8,
    received_at int8[], posted_at int8[], source int4[], event_id text[], team text[], raw bytea[],
    message int4[], place int8[], key text[], ordinal int8[], attachment int8[], level text[],
    search text[],
    destination int4[], name text[],
    alert int4[], target int4[], hold int8[],
    notify text[]) RETURNS bool LANGUAGE plpgsql VOLATILE AS 'BEGIN RETURN false; END';

-- Keeps the bytes of an edit beside the message's first alert, unless retention has emptied the
-- message, or these bytes or others of the same edit are kept. Returns whether they are new. The
-- caller has locked the message's alerts.
CREATE OR REPLACE FUNCTION relay.keep_revision(known_key text, received int8, edit_time text,
    body bytea, revisions_kept int8) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    owner int8;
BEGIN
    INSERT INTO relay.revisions (message, received_at, edited_ts, raw)
    SELECT m.id, received, edit_time, body
    FROM relay.alerts a JOIN relay.messages m ON m.id = relay.message_of(a.seq)
    WHERE a.key = known_key AND m.raw IS NOT NULL AND NOT EXISTS (
        SELECT FROM relay.alerts b JOIN relay.messages n ON n.id = relay.message_of(b.seq)
        WHERE b.key = known_key AND (n.raw = body OR EXISTS (
            SELECT FROM relay.revisions r WHERE r.message = n.id
            AND (r.raw = body OR (r.edited_ts = edit_time AND edit_time <> '')))))
    ORDER BY a.ordinal LIMIT 1
    RETURNING message INTO owner;
    IF owner IS NULL THEN
        RETURN false;
    END IF;
    DELETE FROM relay.revisions r WHERE r.message = owner AND r.id NOT IN (
        SELECT k.id FROM relay.revisions k WHERE k.message = owner
        ORDER BY k.id DESC LIMIT revisions_kept);
    RETURN true;
END $$;
