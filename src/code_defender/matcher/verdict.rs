//! What a message is: an incident, nearly one, or none, and why.

use crate::{
    code_defender::incident::{Incident, Problem, TOO_MANY, TS},
    ids::TsKey,
};

/// What a message is.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It holds at least one incident.
    Incidents(Vec<Found>),
    /// Title and evidence are somewhere in it, though not in an attachment of the known shape. It
    /// holds incidents, unless another bot is the one that reports them here.
    Elsewhere(Vec<Found>, Vouched),
    /// It may hold incidents, and somebody must look.
    NearMiss(Vec<Found>, Doubt),
    /// It has the title of incidents, and is not taken.
    Refused(Reason),
    /// It holds none.
    Ignored(Reason),
}

/// Whether the configuration names the bot of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// The bot is on the list.
    ByList,
    /// There is no list.
    ByNobody,
}

/// Why a message is a near miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It has fields or a link of incidents, under another title.
    Title,
    /// It has the title, and neither a link to the console nor fields.
    Evidence,
    /// It answers in a thread.
    Reply,
    /// The title stands in what it quotes, shares or links to.
    Quoted,
    /// Its bot is not on the list of those that may post incidents.
    Bot,
    /// Another bot reports the incidents in its channel.
    OtherBot,
    /// Its bot has posted too many of them within an hour.
    TooMany,
}

impl Doubt {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Title,
        Self::Evidence,
        Self::Reply,
        Self::Quoted,
        Self::Bot,
        Self::OtherBot,
        Self::TooMany,
    ];

    /// The word in the API, in lists and in the store.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Evidence => "evidence",
            Self::Reply => "reply",
            Self::Quoted => "quoted",
            Self::Bot => "bot",
            Self::OtherBot => "other_bot",
            Self::TooMany => "too_many",
        }
    }

    /// A sentence for whoever looks at the message.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Title => {
                "it has fields or a console link of incidents under another title; if the vendor \
                 has renamed the title, add the new one to `match.titles`"
            }
            Self::Evidence => "it has the title, and neither a console link nor fields",
            Self::Reply => "it has title and evidence, and answers in a thread",
            Self::Quoted => "the title stands only in what it quotes, shares or links to",
            Self::Bot => {
                "it has title and evidence in a new layout, and its bot is not in `bots` of the app"
            }
            Self::OtherBot => {
                "it has title and evidence in a new layout, and another bot reports the incidents \
                 of this channel; put the bot that may into `bots` of the app"
            }
            Self::TooMany => {
                "its bot has posted 20 incidents in a new layout within an hour; put it into \
                 `bots` of the app if that is right, and adopt what is missing"
            }
        }
    }
}

/// The most incidents of a message that are alerts of their own, as many as Slack takes
/// attachments (`docs.slack.dev/reference/methods/chat.postMessage`, `too_many_attachments`). All
/// others together are one more, whose ordinal is this number.
pub const MOST_INCIDENTS: u32 = 100;

/// Returns the `parse_problems` of an alert: what could not be read of its incident, number
/// `ordinal` of the message with that timestamp.
pub fn parse_problems(incident: &Incident, ordinal: u32, ts: TsKey) -> Vec<&'static str> {
    let too_many = (ordinal == MOST_INCIDENTS).then_some(TOO_MANY);
    let without_ts = matches!(ts, TsKey::Digest(_)).then_some(TS);
    let mut problems: Vec<_> = incident.problems().into_iter().map(Problem::label).collect();
    // The shape comes first: it explains the others.
    let at = usize::from(incident.layout);
    problems.splice(at..at, too_many.into_iter().chain(without_ts));
    problems
}

/// An incident and where in the message it was.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which of the matching attachments it is, from 0.
    pub ordinal: u32,
    /// Which of all attachments it is, from 0.
    pub attachment: u32,
    /// What it says.
    pub incident: Incident,
}

/// Why a message holds no incident for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No attachment has a title of incidents.
    Title,
    /// So it is, but a bot posted it with an incident's fields or a link into the console: the
    /// vendor may have renamed the title.
    NearMiss,
    /// Not posted by a bot.
    NoBot,
    /// Posted by a bot that is not on the list.
    BotNotAllowed,
    /// Posted in a channel that is not on the list.
    Channel,
    /// The title is that of a page or a message that was linked to.
    Unfurl,
    /// No kind of message that incidents come as.
    Subtype,
}

impl Reason {
    /// The word in metrics and logs.
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
