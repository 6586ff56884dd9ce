//! What is not an alert and somebody must look at.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{clock::Timestamp, store};

/// How much of an unreadable body a list shows.
const EXCERPT_CHARS: usize = 300;

/// How much there is, and how much of it no operator has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Counted {
    /// Neither listed nor adopted.
    pub unread: u64,
    /// Kept.
    pub total: u64,
}

impl From<store::Counted> for Counted {
    fn from(store::Counted { unread, total }: store::Counted) -> Self {
        Self { unread, total }
    }
}

/// Messages with the title of incidents that were not taken, of one channel for one reason.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Refused {
    /// `channel`, `no_bot`, `bot_not_allowed` or `unfurl`.
    pub reason: String,
    /// The channel.
    pub channel: String,
    /// The number since the start.
    pub count: u64,
    /// When the newest reached the relay.
    pub last: Timestamp,
    /// Slack's timestamp of the newest.
    pub last_ts: String,
}

/// Events that were ignored since the start, by reason.
pub type Ignored = BTreeMap<String, u64>;

/// The answer of `GET /api/v1/near-misses`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMisses {
    /// The near misses.
    pub near_misses: Vec<NearMiss>,
    /// The `before` of the next page, if there is one.
    pub next: Option<i64>,
}

/// A message that may be an incident.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMiss {
    /// The id that its alert would have.
    pub id: String,
    /// Why it is not an alert: title, evidence, reply, quoted, bot, `other_bot` or `too_many`.
    pub reason: String,
    /// The channel.
    pub channel: String,
    /// Slack's id of the bot that posted it, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// Category, script, host and title, as far as they could be read.
    pub summary: String,
    /// When it was posted in Slack.
    pub posted_at: Timestamp,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// Whether it was adopted as an alert.
    pub adopted: bool,
    /// Whether nobody had seen it before this answer.
    pub unread: bool,
}

impl NearMiss {
    pub(in crate::ops) fn new(found: store::NearMiss) -> Self {
        Self {
            id: found.id.to_string(),
            channel: found.id.message.channel.to_string(),
            reason: found.reason,
            bot_id: found.bot_id,
            app_id: found.app_id,
            summary: found.summary,
            posted_at: Timestamp::from_micros(found.posted_at.micros()),
            received_at: found.received_at,
            adopted: found.is_adopted,
            unread: !found.is_read,
        }
    }
}

/// The answer of `GET /api/v1/near-misses/{id}`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMissDetail {
    /// What a list says of it too.
    #[serde(flatten)]
    pub near_miss: NearMiss,
    /// The message as Slack sent it.
    #[schemars(with = "serde_json::Value")]
    pub raw: Box<RawValue>,
}

/// The answer of `POST /api/v1/near-misses/{id}/adopt`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Adopted {
    /// The alerts that are new; 0 if it was an alert already.
    pub changed: u64,
    /// The ids of its alerts.
    pub alert_ids: Vec<String>,
}

/// The answer of `GET /api/v1/quarantine`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Quarantine {
    /// The bodies.
    pub quarantine: Vec<Quarantined>,
}

/// An authentic body that could not be read.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// The app that received it.
    pub app: String,
    /// When it reached the relay.
    pub received_at: Timestamp,
    /// How much of it is kept.
    pub bytes: u64,
    /// Its text: in a list its beginning, alone all that is kept.
    pub body: String,
    /// Whether nobody had seen it before this answer.
    pub unread: bool,
}

impl Quarantined {
    pub(in crate::ops) fn new(found: &store::Quarantined) -> Self {
        let whole = Self::whole(found);
        Self { body: whole.body.chars().take(EXCERPT_CHARS).collect(), ..whole }
    }

    pub(in crate::ops) fn whole(found: &store::Quarantined) -> Self {
        Self {
            id: found.id,
            app: found.app.to_string(),
            received_at: found.received_at,
            bytes: u64::try_from(found.body.len()).unwrap_or(u64::MAX),
            body: String::from_utf8_lossy(&found.body).into_owned(),
            unread: !found.is_read,
        }
    }
}
