//! Decides what is an incident and which destinations it goes to.
//!
//! Push, catch-up and backfill all call [`Admission::admit`]. `ops` asks again about what is
//! stored: [`Admission::adopt`] for a near miss, [`Admission::route_again`] for an alert. Nothing
//! here reads or writes the store.

use std::{collections::BTreeMap, slice, sync::Arc};

use bytes::Bytes;

use super::{
    channels::{Channels, Known},
    posters::Bot,
    routing::{self, Route},
};
use crate::{
    clock::Timestamp,
    code_defender::{
        matcher::{Matcher, Watch},
        verdict::{Doubt, FoundIncident, Reason, Verdict, Vouched, parse_problems},
    },
    ids::{AppName, ChannelId, DestinationName, MessageKey},
    slack::{
        self,
        message::{self, Message, Stored},
    },
    store::{AlertView, NearMiss, NewAlert, NewMessage, Source},
};

/// The matcher, channels and routes of one configuration.
#[derive(Debug)]
pub struct Admission {
    matcher: Arc<Matcher>,
    pub(super) channels: BTreeMap<AppName, Arc<Channels>>,
    routes: Vec<Route>,
}

/// Origin of a message: the app and the path that brought it, and the fields of its envelope.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// App that received the message.
    pub app: &'a AppName,
    /// Push, catch-up or backfill.
    pub source: Source,
    /// Slack's `event_id`, or empty.
    pub event_id: &'a str,
    /// Slack's `team_id`, or empty.
    pub team: &'a str,
    /// Slack's `event_time` in seconds, or 0.
    pub event_time: i64,
    /// Time at which the message reached this process.
    pub received_at: Timestamp,
}

/// Result of [`Admission::admit`].
#[derive(Debug)]
pub enum Admitted {
    /// The message holds incidents in the known layout: store it.
    Incident(IncidentMessage),
    /// The message holds incidents in a new layout: store it, unless another bot reports the
    /// incidents of this channel.
    NewLayout(IncidentMessage, Vouched),
    /// The message may hold incidents: keep it as a near miss.
    NearMiss(IncidentMessage, Doubt),
    /// The message has an incident's title and is not accepted: count it and log a warning.
    Refused(Reason),
    /// The message holds no incident: count it.
    Ignored(Reason),
}

/// A message with incidents, on its way to the store.
#[derive(Debug)]
pub struct IncidentMessage {
    /// The message and its alerts, as they will be stored.
    pub message: NewMessage,
    /// Confirmation that the channel belongs to the app.
    pub certainty: Certainty,
    /// Bot that posted the message.
    pub bot: Bot,
}

/// One destination's routing decision for a stored alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDecision {
    /// Destination that decided.
    pub destination: DestinationName,
    /// Key of the destination's `when` that refuses the alert; `None` if the alert is wanted.
    pub refused_by: Option<&'static str>,
}

/// Confirmation that the channel of an incident belongs to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The channel belongs to the app.
    Certain,
    /// The channel may belong to the app: a configured channel name is not resolved to an id yet.
    Unresolved,
}

impl Admission {
    /// Creates an admission for the configured apps.
    pub fn new(
        matcher: Arc<Matcher>,
        channels: BTreeMap<AppName, Arc<Channels>>,
        routes: Vec<Route>,
    ) -> Self {
        Self { matcher, channels, routes }
    }

    /// Judges a message that was parsed from `text`. `raw` returns `text` as owned bytes; it is
    /// called only for a message that holds, or may hold, an incident.
    pub fn admit(
        &self,
        message: &Message<'_>,
        text: &str,
        post: Post<'_>,
        raw: impl FnOnce() -> Bytes,
    ) -> Admitted {
        let Some(channels) = self.channels.get(post.app) else {
            return Admitted::Ignored(Reason::Channel);
        };
        // One snapshot for the judgement and for the message's key: an id may be found in between.
        let known = channels.known();
        let incident = |found| self.incident_message(message, post, &known, found, raw());
        match self.matcher.judge(message, text, &known.watch) {
            Verdict::Incidents(found) => Admitted::Incident(incident(found)),
            Verdict::NewLayout(found, vouched) => Admitted::NewLayout(incident(found), vouched),
            Verdict::NearMiss(found, doubt) => Admitted::NearMiss(incident(found), doubt),
            Verdict::Refused(reason) => Admitted::Refused(reason),
            Verdict::Ignored(reason) => Admitted::Ignored(reason),
        }
    }

    fn incident_message(
        &self,
        message: &Message<'_>,
        post: Post<'_>,
        known: &Known,
        found: Vec<FoundIncident>,
        raw: Bytes,
    ) -> IncidentMessage {
        let mut key = message.key(post.app, &raw);
        let channel_ids = known.chain(&key.channel);
        let alerts =
            found.into_iter().map(|found| self.new_alert(&key, channel_ids, found)).collect();
        let is_certain = known.is_certain(&key.channel);
        // The key carries the channel's first known id. The store decides again at accept, since
        // another relay may have recorded more ids of the channel.
        if let Some(first) = channel_ids.first().cloned() {
            key.channel = first;
        }
        let certainty = if is_certain { Certainty::Certain } else { Certainty::Unresolved };
        let bot = Bot { bot_id: message.bot().into(), app_id: message.bots_app().into() };
        let message = NewMessage {
            posted_at: message.posted_at(post.event_time),
            source: post.source,
            event_id: post.event_id.to_owned(),
            team: post.team.to_owned(),
            received_at: post.received_at,
            is_edit: message.is_edit,
            edited_ts: message.edited_ts.clone().into_owned(),
            key,
            raw,
            alerts,
        };
        IncidentMessage { message, certainty, bot }
    }

    /// Turns a near miss into the message that would have been stored if it had been accepted: each
    /// incident becomes an alert, under the id that a later reading would give it. Returns `None`
    /// if the app is not configured or the message cannot be parsed.
    pub fn adopt(&self, near_miss: &NearMiss, source: Source) -> Option<NewMessage> {
        let key = &near_miss.id.message;
        let known = self.channels.get(&key.app)?.known();
        let text = slack::readable(&near_miss.raw);
        let message = message::parse(&text).ok()?;
        let found = match self.matcher.judge(&message, &text, &Watch::default()) {
            Verdict::Incidents(found)
            | Verdict::NewLayout(found, _)
            | Verdict::NearMiss(found, _) => found,
            // An operator has decided that the message is an incident.
            Verdict::Refused(_) | Verdict::Ignored(_) => {
                self.matcher.read_as_incident(&text, &message)
            }
        };
        let post = Post {
            app: &key.app,
            source,
            event_id: &near_miss.event_id,
            team: &near_miss.team,
            event_time: 0,
            received_at: near_miss.received_at,
        };
        let raw = near_miss.raw.clone();
        let incident = self.incident_message(&message, post, &known, found, raw);
        Some(NewMessage { key: key.clone(), posted_at: near_miss.posted_at, ..incident.message })
    }

    /// Routes a stored alert by the current configuration. Returns one decision for each
    /// destination, or `None` if the stored message does not hold that incident any more.
    pub fn route_again(&self, alert: &AlertView, raw: &[u8]) -> Option<Vec<RouteDecision>> {
        let text = slack::readable(raw);
        let stored = Stored::parse(&text).ok()?;
        let incident = self.matcher.incident_at(&stored, alert.attachment)?;
        let key = &alert.id.message;
        let known = self.channels.get(&key.app).map(|channels| channels.known());
        let channel_ids = known
            .as_deref()
            .map_or_else(|| slice::from_ref(&key.channel), |known| known.chain(&key.channel));
        let decide = |route: &Route| RouteDecision {
            destination: route.destination.clone(),
            refused_by: route.when.refusal(&key.app, channel_ids, &incident),
        };
        Some(self.routes.iter().map(decide).collect())
    }

    fn new_alert(
        &self,
        key: &MessageKey,
        channel_ids: &[ChannelId],
        found: FoundIncident,
    ) -> NewAlert {
        let FoundIncident { ordinal, attachment, incident } = found;
        NewAlert {
            ordinal,
            attachment,
            level: incident.risk.level.as_str(),
            search: incident.search_text(),
            problems: parse_problems(&incident, ordinal, key.ts),
            destinations: routing::route(&self.routes, &key.app, channel_ids, &incident),
        }
    }
}
