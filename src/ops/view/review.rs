//! Near misses and quarantined bodies, which an operator reviews.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{clock::Timestamp, store};

/// Characters of a quarantined body that a list shows.
const EXCERPT_CHARS: usize = 300;

/// Number of entries, and how many of them no operator has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Counted {
    /// Entries that were neither listed nor adopted.
    pub unread: u64,
    /// Entries that are kept.
    pub total: u64,
}

impl From<store::Counted> for Counted {
    fn from(store::Counted { unread, total }: store::Counted) -> Self {
        Self { unread, total }
    }
}

/// Messages with an incident's title that were not taken, for one channel and one reason.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Refused {
    /// Reason: `channel`, `no_bot`, `bot_not_allowed` or `unfurl`.
    pub reason: String,
    /// Id of the channel.
    pub channel: String,
    /// Number of messages since the start.
    pub count: u64,
    /// Time at which the newest message reached the relay.
    pub last: Timestamp,
    /// Slack's timestamp of the newest message.
    pub last_ts: String,
}

/// Number of events that were ignored since the start, by reason.
pub type Ignored = BTreeMap<String, u64>;

/// Answer of `GET /api/v1/near-misses`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMisses {
    /// Near misses of this page.
    pub near_misses: Vec<NearMiss>,
    /// Value of `before` for the next page; null on the last page.
    pub next: Option<i64>,
}

/// A message that resembles an incident and is not an alert.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMiss {
    /// Id that the alert would have.
    pub id: String,
    /// Reason: title, evidence, reply, quoted, bot, `other_bot`, `too_many` or history.
    pub reason: String,
    /// Id of the channel.
    pub channel: String,
    /// Slack's id of the bot that posted the message, or empty.
    pub bot_id: String,
    /// Slack's id of the bot's app, or empty.
    pub app_id: String,
    /// Category, script, host and title, as far as they could be read.
    pub summary: String,
    /// Time at which the message was posted in Slack.
    pub posted_at: Timestamp,
    /// Time at which the message reached the relay.
    pub received_at: Timestamp,
    /// `true` if the near miss was adopted as an alert.
    pub adopted: bool,
    /// `true` if no operator had seen the near miss before this answer.
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

/// Answer of `GET /api/v1/near-misses/{id}`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct NearMissDetail {
    /// Keys of the list.
    #[serde(flatten)]
    pub near_miss: NearMiss,
    /// Message as Slack sent it.
    #[schemars(with = "serde_json::Value")]
    pub raw: Box<RawValue>,
}

/// Answer of `POST /api/v1/near-misses/{id}/adopt`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Adopted {
    /// Number of new alerts; 0 if the message was an alert already.
    pub changed: u64,
    /// Ids of the message's alerts.
    pub alert_ids: Vec<String>,
}

/// Answer of `GET /api/v1/quarantine`, newest first.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Quarantine {
    /// Bodies that are kept.
    pub quarantine: Vec<Quarantined>,
}

/// An authentic body that could not be parsed.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Quarantined {
    /// Number of the body.
    pub id: i64,
    /// Name of the app that received the body.
    pub app: String,
    /// Time at which the body reached the relay.
    pub received_at: Timestamp,
    /// Number of bytes that are kept.
    pub bytes: u64,
    /// Text of the body: the beginning in a list, all that is kept otherwise.
    pub body: String,
    /// `true` if no operator had seen the body before this answer.
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
