//! Lists alerts. Alerts and deliveries are scanned backwards side by side, so the most expensive
//! page costs two scans of the store, and never a look-up for each alert. Texts are compared here
//! and not in SQL, so that case is ignored in the same way by every engine.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row, Rows, params};

use super::{
    row::StoredTs,
    shared::Shared,
    view::{Waiting, by_seq, deliveries, number_of, state_of},
};
use crate::{
    ids::DestinationName,
    store::{AlertQuery, AlertView, State, search::Search, stored::PER_ALERT},
};

/// Returns a page of alerts, newest first.
pub(super) fn alerts(
    shared: &Shared,
    db: &Connection,
    query: &AlertQuery,
) -> rusqlite::Result<Vec<AlertView>> {
    let leased = shared.leases.live(shared.clock.moment());
    let view = |seq| {
        let mut view = by_seq(db, seq)?;
        view.deliveries = deliveries(db, seq, |id| leased.contains(&id))?;
        Ok(view)
    };
    find(db, query, &leased)?.into_iter().map(view).collect()
}

fn find(db: &Connection, query: &AlertQuery, leased: &HashSet<i64>) -> rusqlite::Result<Vec<i64>> {
    let before = query.before.unwrap_or(i64::MAX);
    let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut statement = db.prepare_cached(
        "SELECT seq, channel, ts, ordinal, search FROM alerts
         WHERE seq < ?1 AND search IS NOT NULL AND (?2 IS NULL OR level = ?2)
         ORDER BY seq DESC",
    )?;
    let mut rows = statement.query(params![before, query.level])?;
    let mut beside = db.prepare_cached(
        "SELECT id, state, destination, alert_faults FROM deliveries NOT INDEXED
         WHERE id < ?1 AND (?2 IS NULL OR state = ?2) ORDER BY id DESC",
    )?;
    let last = before.saturating_mul(PER_ALERT);
    let mut beside = Beside {
        rows: beside.query(params![last, query.state.and_then(number_of)])?,
        at: i64::MAX,
        state: query.state,
        leased,
        destinations: Destinations::new(db, query)?,
    };
    let mut text = query.text.as_deref().map(|text| Text::new(db, text)).transpose()?;
    let mut found = Vec::new();
    while found.len() < wanted
        && let Some(row) = rows.next()?
    {
        let seq = row.get(0)?;
        let is_wanted = match (query.state, query.unrouted) {
            (None, false) => true,
            (None, true) => !beside.has(seq)?,
            (Some(_), false) => beside.has(seq)?,
            (Some(_), true) => false,
        };
        // The text comes last, since comparing texts costs most.
        if is_wanted && text.as_mut().map_or(Ok(true), |text| text.is_in(row))? {
            found.push(seq);
        }
    }
    Ok(found)
}

/// Scan of the deliveries in the wanted state, beside the scan of the alerts.
struct Beside<'a> {
    rows: Rows<'a>,
    /// Alert of the last delivery that matched.
    at: i64,
    state: Option<State>,
    leased: &'a HashSet<i64>,
    destinations: Destinations,
}

/// Numbers of the destinations that change the state of their deliveries.
struct Destinations {
    paused: HashSet<i64>,
    unconfigured: HashSet<i64>,
}

impl Destinations {
    fn new(db: &Connection, query: &AlertQuery) -> rusqlite::Result<Self> {
        let (mut paused, mut unconfigured) = (HashSet::new(), HashSet::new());
        let mut statement =
            db.prepare_cached("SELECT id, paused_at IS NOT NULL, name FROM destinations")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if row.get(1)? {
                paused.insert(id);
            }
            let name = row.get_ref(2)?.as_str()?;
            let is_known = |all: &Vec<DestinationName>| all.iter().any(|one| one.as_str() == name);
            if !query.configured.as_ref().is_none_or(is_known) {
                unconfigured.insert(id);
            }
        }
        Ok(Self { paused, unconfigured })
    }
}

impl Beside<'_> {
    /// Returns `true` if the alert has a matching delivery. Each call asks for an older alert.
    fn has(&mut self, seq: i64) -> rusqlite::Result<bool> {
        while self.at > seq {
            let Some(row) = self.rows.next()? else {
                // No delivery is left, so no older alert has one.
                self.at = i64::MIN;
                break;
            };
            let (id, destination) = (row.get(0)?, row.get(2)?);
            let waits = Waiting {
                is_leased: self.leased.contains(&id),
                is_paused: self.destinations.paused.contains(&destination),
                refusals: row.get(3)?,
            };
            let state = state_of(row.get(1)?, waits);
            let state = if self.destinations.unconfigured.contains(&destination) {
                state.without_destination()
            } else {
                state
            };
            if self.state.is_none_or(|meant| meant == state) {
                self.at = id / PER_ALERT;
            }
        }
        Ok(self.at == seq)
    }
}

/// A text that an alert is searched for.
struct Text {
    search: Search,
    /// Prefixes of alert ids by the number of the channel, one for each id that the channel has
    /// had. Channels whose alert ids cannot contain the text are left out.
    channels: HashMap<i64, Vec<String>>,
}

impl Text {
    fn new(db: &Connection, text: &str) -> rusqlite::Result<Self> {
        let search = Search::new(text);
        let mut statement = db.prepare_cached(
            "SELECT c.id, c.app || ':' || coalesce(o.channel, c.channel) || ':' FROM channels c
             LEFT JOIN chains own ON own.app = c.app AND own.channel = c.channel
             LEFT JOIN chains o ON o.app = own.app AND o.first = own.first",
        )?;
        let mut rows = statement.query(())?;
        // The prefix is followed by a timestamp or a digest, and an ordinal.
        let may_be = |begin: &str| {
            !begin.is_ascii() || search.is_made_of(&format!("{begin}0123456789.:ts-abcdef"))
        };
        let mut channels: HashMap<i64, Vec<String>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let begin: String = row.get(1)?;
            if may_be(&begin) {
                channels.entry(row.get(0)?).or_default().push(begin);
            }
        }
        Ok(Self { search, channels })
    }

    /// Returns `true` if the search text or the id of the alert contains the text.
    fn is_in(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        if self.search.is_in(row.get_ref(4)?.as_str()?) {
            return Ok(true);
        }
        let Some(begins) = self.channels.get(&row.get(1)?) else {
            return Ok(false);
        };
        let (ts, ordinal) = (row.get::<_, StoredTs>(2)?.0, row.get::<_, u32>(3)?);
        // The format of an alert id, without an allocation for each row.
        let search = &mut self.search;
        Ok(begins.iter().any(|begin| search.is_in_display(format_args!("{begin}{ts}:{ordinal}"))))
    }
}
