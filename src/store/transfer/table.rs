//! The tables of a transfer: how SQLite reads each one and how PostgreSQL writes it.

/// The statements that move one table.
#[derive(Debug)]
pub(in crate::store) struct Table {
    /// Name of the rows, in the plural.
    pub(in crate::store) name: &'static str,
    /// SQLite: selects the rows of the messages from `?1` up to, not including, `?2` as one JSON
    /// array.
    pub(in crate::store) read: &'static str,
    /// PostgreSQL: inserts the rows of the JSON array `$1`.
    pub(in crate::store) write: &'static str,
}

/// A range of messages, by their numbers; the end is not included.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct MessageRange {
    pub(in crate::store) start: i64,
    pub(in crate::store) end: i64,
}

/// Tables that are small enough to be moved whole. Their condition `?1 < ?2` is true for any range
/// that is not empty.
pub(super) const WHOLE: &[Table] = &[
    Table {
        name: "destinations",
        read: "SELECT json_group_array(json_array(name, paused_at, paused_for, numbered, settings,
                paused_until, pause_length, pause_reason))
            FROM destinations WHERE ?1 < ?2",
        write: "INSERT INTO relay.destinations (name, paused_at, paused_for, numbered, settings,
                paused_until, pause_length, pause_reason)
            SELECT r->>0, (r->>1)::int8, (r->>2)::int8, (r->>3)::int8, (r->>4)::int8,
                (r->>5)::int8, (r->>6)::int8, r->>7
            FROM json_array_elements($1::json) AS r
            ON CONFLICT (name) DO UPDATE
            SET paused_at = excluded.paused_at, paused_for = excluded.paused_for,
                numbered = excluded.numbered, settings = excluded.settings,
                paused_until = excluded.paused_until, pause_length = excluded.pause_length,
                pause_reason = excluded.pause_reason",
    },
    Table {
        name: "cursors",
        read: "SELECT json_group_array(json_array(app, channel, ts, term, seen))
            FROM cursors WHERE ?1 < ?2",
        write: "INSERT INTO relay.cursors (app, channel, ts, term, seen)
            SELECT r->>0, r->>1, (r->>2)::int8,
            (r->>3)::int8, (r->>4)::int8 FROM json_array_elements($1::json) AS r
            ON CONFLICT (app, channel) DO UPDATE
            SET ts = least(cursors.ts, excluded.ts), seen = least(cursors.seen, excluded.seen)",
    },
    Table {
        name: "beginnings of channels",
        read: "SELECT json_group_array(json_array(app, written, at, is_sure))
            FROM beginnings WHERE ?1 < ?2",
        write: "INSERT INTO relay.beginnings (app, written, at, is_sure)
            SELECT r->>0, r->>1, (r->>2)::int8, (r->>3)::int4 <> 0
            FROM json_array_elements($1::json) AS r
            ON CONFLICT (app, written) DO UPDATE
            SET at = least(beginnings.at, excluded.at), is_sure = excluded.is_sure",
    },
    Table {
        name: "channel ids",
        read: "SELECT json_group_array(json_array(app, written, id))
            FROM channel_ids WHERE ?1 < ?2",
        write: "INSERT INTO relay.channel_ids (app, written, id)
            SELECT r->>0, r->>1, r->>2 FROM json_array_elements($1::json) AS r
            ON CONFLICT (app, written) DO UPDATE SET id = excluded.id",
    },
    Table {
        name: "channels' former ids",
        read: "SELECT json_group_array(json_array(app, channel, first, place))
            FROM chains WHERE ?1 < ?2",
        write: "INSERT INTO relay.chains (app, channel, first, place)
            SELECT r->>0, r->>1, r->>2, (r->>3)::int4 FROM json_array_elements($1::json) AS r
            ON CONFLICT (app, channel) DO UPDATE
            SET first = excluded.first, place = excluded.place",
    },
    Table {
        name: "unpushed messages",
        read: "SELECT json_group_array(json_array(c.app || ':' || c.channel || ':' ||
                iif(typeof(u.ts) = 'integer',
                    printf('%d.%06d', u.ts / 1000000, u.ts % 1000000),
                    'ts-' || lower(hex(u.ts))), c.app, c.channel, u.posted_at))
            FROM unpushed u JOIN channels c ON c.id = u.channel WHERE ?1 < ?2",
        write: "INSERT INTO relay.unpushed (key, app, channel, posted_at)
            SELECT r->>0, r->>1, r->>2, (r->>3)::int8 FROM json_array_elements($1::json) AS r",
    },
    Table {
        name: "bots that posted incidents",
        read: "SELECT json_group_array(json_array(app, channel, bot_id, app_id, incidents, last))
            FROM posters WHERE ?1 < ?2",
        write: "INSERT INTO relay.posters AS p (app, channel, bot_id, app_id, incidents, last)
            SELECT r->>0, r->>1, r->>2, r->>3, (r->>4)::int8, (r->>5)::int8
            FROM json_array_elements($1::json) AS r
            ON CONFLICT (app, channel, bot_id, app_id) DO UPDATE
            SET incidents = p.incidents + excluded.incidents,
                last = greatest(p.last, excluded.last)",
    },
    Table {
        name: "operators' actions",
        read: "SELECT json_group_array(json_array(at, who, action, selection, changed))
            FROM (SELECT * FROM actions ORDER BY id) WHERE ?1 < ?2",
        write: "INSERT INTO relay.actions (at, who, action, selection, changed)
            SELECT (r->>0)::int8, r->>1, r->>2, r->>3, (r->>4)::int8
            FROM json_array_elements($1::json) AS r",
    },
    Table {
        name: "unreadable bodies",
        read: "SELECT json_group_array(json_array(app, received_at, hex(body), read))
            FROM (SELECT * FROM quarantine ORDER BY id) WHERE ?1 < ?2",
        write: "INSERT INTO relay.quarantine (app, received_at, body, read)
            SELECT r->>0, (r->>1)::int8, decode(r->>2, 'hex'), (r->>3)::int4 <> 0
            FROM json_array_elements($1::json) AS r",
    },
    Table {
        name: "near misses",
        read: "SELECT json_group_array(json_array(key, reason, posted_at, received_at, event_id,
                team, bot_id, app_id, summary, adopted, read, hex(raw)))
            FROM (SELECT * FROM near_misses ORDER BY id) WHERE ?1 < ?2",
        write: "INSERT INTO relay.near_misses (key, reason, posted_at, received_at, event_id,
                team, bot_id, app_id, summary, adopted, read, raw)
            SELECT r->>0, r->>1, (r->>2)::int8, (r->>3)::int8, r->>4, r->>5, r->>6, r->>7, r->>8,
                (r->>9)::int4 <> 0, (r->>10)::int4 <> 0, decode(r->>11, 'hex')
            FROM json_array_elements($1::json) AS r
            ON CONFLICT (key) DO UPDATE SET key = excluded.key",
    },
];

/// Tables that are moved a range of messages at a time.
pub(super) const RANGED: &[Table] = &[
    Table {
        name: "messages",
        read: "SELECT json_group_array(json_array(
                id, received_at, posted_at, source, event_id, team,
                iif(raw IS NULL, NULL, hex(raw))))
            FROM messages WHERE id >= ?1 AND id < ?2",
        write: "INSERT INTO relay.messages
                (id, received_at, posted_at, source, event_id, team, raw)
            SELECT (r->>0)::int8, (r->>1)::int8, (r->>2)::int8, (r->>3)::int4, r->>4, r->>5,
                decode(r->>6, 'hex')
            FROM json_array_elements($1::json) AS r",
    },
    Table {
        name: "alerts",
        read: "SELECT json_group_array(json_array(
                a.message * :PER_MESSAGE + a.seq - a.message,
                c.app || ':' || c.channel || ':' ||
                iif(typeof(a.ts) = 'integer',
                    printf('%d.%06d', a.ts / 1000000, a.ts % 1000000),
                    'ts-' || lower(hex(a.ts))),
                a.ordinal, a.attachment, a.sources, a.level, a.search))
            FROM messages m JOIN alerts a ON a.seq >= m.id AND a.seq < m.id + m.alerts
            JOIN channels c ON c.id = a.channel WHERE m.id >= ?1 AND m.id < ?2",
        write: "INSERT INTO relay.alerts (seq, key, ordinal, attachment, sources, level, search)
            SELECT (r->>0)::int8, r->>1, (r->>2)::int8, (r->>3)::int8, (r->>4)::int4, r->>5, r->>6
            FROM json_array_elements($1::json) AS r",
    },
    Table {
        name: "deliveries",
        read: "SELECT json_group_array(json_array(
                m.id * :PER_MESSAGE + d.id / :PER_ALERT - m.id, t.name, d.state, d.due_at, d.since,
                d.attempts,
                d.alert_faults, d.finished_at, d.dead_reason, d.reference_id, d.reference_url,
                d.number, d.wait, d.because, d.accepted, d.evidence))
            FROM messages m JOIN deliveries d
                ON d.id >= m.id * :PER_ALERT
                AND d.id < (m.id + m.alerts) * :PER_ALERT
            JOIN destinations t ON t.id = d.destination WHERE m.id >= ?1 AND m.id < ?2",
        write: "INSERT INTO relay.deliveries (id, destination, state, due_at, since, attempts,
                alert_faults, finished_at, dead_reason, reference_id, reference_url, number, wait,
                because, accepted, evidence)
            SELECT (r->>0)::int8 * :PER_ALERT + t.id, t.id, (r->>2)::int2, (r->>3)::int8,
                (r->>4)::int8, (r->>5)::int4, (r->>6)::int4, (r->>7)::int8, r->>8, r->>9, r->>10,
                (r->>11)::int8, (r->>12)::int8, (r->>13)::int2, (r->>14)::int4 <> 0, (r->>15)::int4
            FROM json_array_elements($1::json) AS r JOIN relay.destinations t ON t.name = r->>1",
    },
    Table {
        name: "attempts",
        read: "SELECT json_group_array(json_array(
                m.id * :PER_MESSAGE + l.delivery / :PER_ALERT - m.id, t.name, l.number,
                l.started_at, l.duration, l.class, l.status, l.excerpt))
            FROM messages m JOIN attempts l
                ON l.delivery >= m.id * :PER_ALERT
                AND l.delivery < (m.id + m.alerts) * :PER_ALERT
            JOIN destinations t ON t.id = l.delivery % :PER_ALERT WHERE m.id >= ?1 AND m.id < ?2",
        write: "INSERT INTO relay.attempts
                (delivery, number, started_at, duration, class, status, excerpt)
            SELECT (r->>0)::int8 * :PER_ALERT + t.id, (r->>2)::int4, (r->>3)::int8,
                (r->>4)::int8, r->>5, (r->>6)::int4, r->>7
            FROM json_array_elements($1::json) AS r JOIN relay.destinations t ON t.name = r->>1",
    },
    Table {
        name: "revisions",
        read: "SELECT json_group_array(json_array(message, received_at, edited_ts, hex(raw)))
            FROM (SELECT * FROM revisions WHERE message >= ?1 AND message < ?2 ORDER BY id)",
        write: "INSERT INTO relay.revisions (message, received_at, edited_ts, raw)
            SELECT (r->>0)::int8, (r->>1)::int8, r->>2, decode(r->>3, 'hex')
            FROM json_array_elements($1::json) AS r",
    },
];
