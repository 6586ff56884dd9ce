//! From Slack's message to the store: what is an incident, where it goes, and the answer to Slack.
//!
//! [`events_api`] takes pushes; [`catch_up`] enters at the same [`Admission::admit`]. This module
//! never talks to a destination: it meets `delivery` only in the store.

pub mod catch_up;
pub mod channels;
mod doubt;
pub mod events_api;
mod fate;
pub mod notes;
pub mod notice;
pub mod posters;
pub mod routing;

use std::{collections::BTreeMap, slice, sync::Arc};

use bytes::Bytes;

pub use self::fate::outcomes;
use crate::{
    clock::Timestamp,
    code_defender::matcher::{
        Doubt, Found, Matcher, Reason, Verdict, Vouched, Watch, parse_problems,
    },
    ids::{AppName, ChannelId, DestinationName, MessageKey},
    intake::{
        channels::{Channels, Known},
        posters::Bot,
        routing::Route,
    },
    slack::{
        self,
        message::{self, Message, Stored},
    },
    store::{AlertView, NearMiss, NewAlert, NewMessage, Source},
};

/// Decides what is an incident and where it goes.
#[derive(Debug)]
pub struct Admission {
    matcher: Arc<Matcher>,
    channels: BTreeMap<AppName, Arc<Channels>>,
    routes: Vec<Route>,
}

/// How a message came to us, and what its envelope said.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// The app that received it.
    pub app: &'a AppName,
    /// By push, catch-up or backfill.
    pub source: Source,
    /// Slack's `event_id`, or empty.
    pub event_id: &'a str,
    /// Slack's `team_id`, or empty.
    pub team: &'a str,
    /// Slack's `event_time` in seconds, or 0.
    pub event_time: i64,
    /// When it reached us.
    pub received_at: Timestamp,
}

/// What a message is to us.
#[derive(Debug)]
pub enum Admitted {
    /// It has incidents: to be stored.
    Incident(IncidentMessage),
    /// It has incidents of an unknown shape: to be stored, unless another bot is the one that
    /// reports them.
    Elsewhere(IncidentMessage, Vouched),
    /// It may have incidents: to be kept until somebody has looked at it.
    NearMiss(IncidentMessage, Doubt),
    /// It has the title of incidents and is not taken: counted, and said.
    Refused(Reason),
    /// It has none: counted, and forgotten.
    Ignored(Reason),
}

/// A message with incidents, on its way to the store.
#[derive(Debug)]
pub struct IncidentMessage {
    /// What is to be stored.
    pub message: NewMessage,
    /// Whether its channel is one of ours.
    pub certainty: Certainty,
    /// The bot that posted it.
    pub bot: Bot,
}

/// Whether a destination wants a stored alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The destination.
    pub destination: DestinationName,
    /// The key of its `when` that refuses the alert, or `None` if it wants it.
    pub refused_by: Option<&'static str>,
}

/// Whether the channel of an incident is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It is.
    Certain,
    /// It may be: the id behind some configured name is not known yet.
    Unresolved,
}

impl Admission {
    /// An admission for the configured apps.
    pub fn new(
        matcher: Arc<Matcher>,
        channels: BTreeMap<AppName, Arc<Channels>>,
        routes: Vec<Route>,
    ) -> Self {
        Self { matcher, channels, routes }
    }

    /// Judges a message that was parsed from `text`. `raw` gives the same text as it is stored, and
    /// is asked only if there is, or may be, an incident in it.
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
        let known = channels.known();
        let incident = |found| self.incident_message(message, post, &known, found, raw());
        match self.matcher.judge(message, text, &known.watch) {
            Verdict::Incidents(found) => Admitted::Incident(incident(found)),
            Verdict::Elsewhere(found, vouched) => Admitted::Elsewhere(incident(found), vouched),
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
        found: Vec<Found>,
        raw: Bytes,
    ) -> IncidentMessage {
        let mut key = message.key(post.app, &raw);
        let channel = known.chain(&key.channel);
        let alerts = found.into_iter().map(|found| self.new_alert(&key, channel, found)).collect();
        let is_certain = known.is_certain(&key.channel);
        // The store has the last word: another relay may know more ids of the channel.
        if let Some(first) = channel.first().cloned() {
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

    /// Makes the message of a near miss what it would be if it had been let through: each incident
    /// in it is an alert, under the id that a later reading would give it. `None` if the app is not
    /// configured or the message is unreadable.
    pub fn adopt(&self, near_miss: &NearMiss, source: Source) -> Option<NewMessage> {
        let key = &near_miss.id.message;
        let known = self.channels.get(&key.app)?.known();
        let text = slack::readable(&near_miss.raw);
        let message = message::parse(&text).ok()?;
        let found = match self.matcher.judge(&message, &text, &Watch::default()) {
            Verdict::Incidents(found)
            | Verdict::Elsewhere(found, _)
            | Verdict::NearMiss(found, _) => found,
            Verdict::Refused(_) | Verdict::Ignored(_) => self.matcher.anyway(&text, &message),
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

    /// Judges a stored alert anew: who wants it, and which key of `when` refuses it for the others.
    /// `None` if the stored message holds no such incident.
    pub fn route_again(&self, alert: &AlertView, raw: &[u8]) -> Option<Vec<Wish>> {
        let text = slack::readable(raw);
        let stored = Stored::parse(&text).ok()?;
        let incident = self.matcher.incident_at(&stored, alert.attachment)?;
        let key = &alert.id.message;
        let known = self.channels.get(&key.app).map(|channels| channels.known());
        let channel = known
            .as_deref()
            .map_or_else(|| slice::from_ref(&key.channel), |known| known.chain(&key.channel));
        let wish = |route: &Route| Wish {
            destination: route.destination.clone(),
            refused_by: route.when.refusal(&key.app, channel, &incident),
        };
        Some(self.routes.iter().map(wish).collect())
    }

    fn new_alert(&self, key: &MessageKey, channel: &[ChannelId], found: Found) -> NewAlert {
        let Found { ordinal, attachment, incident } = found;
        NewAlert {
            ordinal,
            attachment,
            level: incident.risk.level.as_str(),
            search: incident.search_text(),
            problems: parse_problems(&incident, ordinal, key.ts),
            destinations: routing::route(&self.routes, &key.app, channel, &incident),
        }
    }
}
