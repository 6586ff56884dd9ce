//! Result of judging a message: an incident, a near miss, or neither, and why.

use super::incident::{Incident, IncidentProblem, TOO_MANY, TS};
use crate::ids::TsKey;

/// Result of judging a message.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The message holds at least one incident in the known layout.
    Incidents(Vec<FoundIncident>),
    /// Title and evidence are in the message, but not in an attachment of the known layout. The
    /// message holds incidents, unless another bot reports the incidents of this channel.
    NewLayout(Vec<FoundIncident>, Vouched),
    /// The message may hold incidents; a person must look at it.
    NearMiss(Vec<FoundIncident>, Doubt),
    /// The message has an incident's title and is not accepted.
    Refused(Reason),
    /// The message holds no incident.
    Ignored(Reason),
}

/// Presence of the message's bot in the configured list of bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// The bot is on the list.
    ByList,
    /// No list is configured.
    ByNobody,
}

/// Reason why a message is a near miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The message has the fields or a console link of an incident, under another title.
    Title,
    /// The message has the title, and neither a console link nor fields.
    Evidence,
    /// The message is a reply in a thread.
    Reply,
    /// The title is in text that the message quotes, shares or links to.
    Quoted,
    /// The bot is not on the list of those that may post incidents.
    Bot,
    /// Another bot reports the incidents of the channel.
    OtherBot,
    /// The bot has posted too many incidents in a new layout within an hour.
    TooMany,
    /// The history before the message, which may show that another bot reports the incidents of the
    /// channel, cannot be read.
    History,
}

impl Doubt {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Title,
        Self::Evidence,
        Self::Reply,
        Self::Quoted,
        Self::Bot,
        Self::OtherBot,
        Self::TooMany,
        Self::History,
    ];

    /// Returns the word that stands for the reason in the API, in lists and in the store.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Evidence => "evidence",
            Self::Reply => "reply",
            Self::Quoted => "quoted",
            Self::Bot => "bot",
            Self::OtherBot => "other_bot",
            Self::TooMany => "too_many",
            Self::History => "history",
        }
    }

    /// Returns an explanation for the operator, with a remedy where there is one.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Title => {
                "it has fields or a console link of incidents under another title; if the vendor \
                 has renamed the title, add the new one to `match.titles`"
            }
            Self::Evidence => "it has the title, and neither a console link nor fields",
            Self::Reply => "it has title and evidence, and is a reply in a thread",
            Self::Quoted => "the title is only in text that it quotes, shares or links to",
            Self::Bot => {
                "it has title and evidence in a new layout, and its bot is not in `bots` of the app"
            }
            Self::OtherBot => {
                "it has title and evidence in a new layout, and another bot reports the incidents \
                 of this channel; add the bot that posts incidents to `bots` of the app"
            }
            Self::TooMany => {
                "its bot has posted 20 incidents in a new layout within an hour; if they are real, \
                 add the bot to `bots` of the app, and adopt those that are missing"
            }
            Self::History => {
                "it has title and evidence in a new layout, and the history before it, which may \
                 show that another bot reports the incidents of this channel, could not be read; \
                 adopt it if it is an incident"
            }
        }
    }
}

/// Most incidents of a message that become alerts of their own, as many as Slack accepts
/// attachments (`docs.slack.dev/reference/methods/chat.postMessage`, `too_many_attachments`). All
/// further incidents together become one more alert, whose ordinal is this number.
pub const MOST_INCIDENTS: u32 = 100;

/// Place of an incident that is not in an attachment of the known layout: the whole message.
pub const WHOLE_MESSAGE: u32 = u32::MAX;

/// Returns an alert's `parse_problems`: the problems of the incident, and those of being number
/// `ordinal` of a message with this timestamp.
pub fn parse_problems(incident: &Incident, ordinal: u32, ts: TsKey) -> Vec<&'static str> {
    let too_many = (ordinal == MOST_INCIDENTS).then_some(TOO_MANY);
    let without_ts = matches!(ts, TsKey::Digest(_)).then_some(TS);
    let mut problems: Vec<_> =
        incident.problems().into_iter().map(IncidentProblem::label).collect();
    // The layout comes first, since it explains the other problems.
    let at = usize::from(incident.is_new_layout);
    problems.splice(at..at, too_many.into_iter().chain(without_ts));
    problems
}

/// An incident and its place in the message.
#[derive(Clone, Debug)]
pub struct FoundIncident {
    /// Number of the incident among those of the message, from 0.
    pub ordinal: u32,
    /// Index of the attachment among all attachments, from 0, or [`WHOLE_MESSAGE`].
    pub attachment: u32,
    /// The incident as read from that place.
    pub incident: Incident,
}

/// Reason why a message is not accepted as an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The title was not found.
    Title,
    /// The message was kept as a near miss.
    NearMiss,
    /// The message was not posted by a bot.
    NoBot,
    /// The bot is not on the list.
    BotNotAllowed,
    /// The channel is not on the list.
    Channel,
    /// The title is that of a page or message that was linked to.
    Unfurl,
    /// The message is not a post.
    Subtype,
}

impl Reason {
    /// Returns the word that stands for the reason in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::NearMiss => "near_miss",
            Self::NoBot => "no_bot",
            Self::BotNotAllowed => "bot_not_allowed",
            Self::Channel => "channel",
            Self::Unfurl => "unfurl",
            Self::Subtype => "subtype",
        }
    }
}
