//! Table of the outcomes of an event, each with the places where an operator sees it.

use super::fate::{Acceptance, Fate};
use crate::{code_defender::verdict::Reason, trouble::Outcome};

/// Returns a row for each outcome that an event can have.
pub fn outcomes() -> impl Iterator<Item = Outcome> {
    Fate::ALL.into_iter().map(row)
}

const fn row(fate: Fate) -> Outcome {
    let (outcome, reason) = fate.labels();
    let [what, log, status, doctor] = match fate {
        Fate::Stored(acceptance) => stored(acceptance),
        Fate::Ignored(reason) => ignored(reason),
        Fate::Type => {
            ["An event that is not a message.", "DEBUG is ignored: type", "ignored.type", ""]
        }
        Fate::Lifecycle => [
            "Slack reports a change of the app or of a channel.",
            "WARN Slack reports a change",
            "ignored.lifecycle",
            "",
        ],
        Fate::Unparsable => [
            "An authentic body that cannot be parsed.",
            "WARN cannot be read",
            "quarantine.unread",
            "authentic requests that could not be read",
        ],
        Fate::Team => [
            "An authentic event of a workspace that is not the `team` of any app with its secret.",
            "WARN no app with that signing secret",
            "ignored.team",
            "",
        ],
        Fate::Unsettled => [
            "An authentic event of an app's `team`, signed with the secret of another app. The \
             app's own secret may be rotated next: 503.",
            "WARN are answered 503",
            "",
            "",
        ],
        Fate::UnknownApp => [
            "A request to the path of an app that is not configured: 404.",
            "WARN no configured app has that path",
            "",
            "",
        ],
        Fate::BadSignature => [
            "A request that is well formed, recent, and signed with another secret: 401.",
            "WARN events are refused with 401",
            "apps.0.signing.rejected",
            "a wrong signature",
        ],
        Fate::Stale => [
            "A request with a timestamp more than 300 s in the past or the future: 401.",
            "DEBUG a request was refused",
            "apps.0.signing.strangers",
            "",
        ],
        Fate::TooLarge => [
            "A request with more than 4 MiB of body or too many headers: 413 or 431.",
            "DEBUG a request was refused",
            "",
            "",
        ],
        Fate::Slow => [
            "A request whose body does not arrive in time: 408.",
            "DEBUG a request was refused",
            "",
            "",
        ],
        Fate::Overload => [
            "A request that is shed because newer ones fill the limits: 503.",
            "WARN fill the room for them",
            "",
            "",
        ],
        Fate::Store => [
            "An incident that could not be stored: 503, and Slack sends it again.",
            "ERROR is not stored, and Slack will send it again",
            "not_ready_reason",
            "takes no alerts",
        ],
    };
    Outcome { outcome, reason, what, log, status, doctor }
}

const fn stored(acceptance: Acceptance) -> [&'static str; 4] {
    match acceptance {
        Acceptance::Routed => {
            ["An incident is stored for its destinations.", "INFO accepted", "apps.0.bots", ""]
        }
        Acceptance::Unconfirmed => [
            "An incident is stored while a configured channel name is not resolved: it may be from \
             another channel.",
            "INFO accepted",
            "apps.0.catch_up.unresolved",
            "history is not read",
        ],
        Acceptance::Unrouted => [
            "An incident is stored, and no destination wants it.",
            "INFO accepted, but no destination takes it",
            "unrouted",
            "no destination wanted",
        ],
        Acceptance::Duplicate => ["The incident is stored already.", "DEBUG is known", "", ""],
        Acceptance::KnownEdit => [
            "An edit of a message whose incident is stored already.",
            "INFO an edit of the message",
            "ignored.known_edit",
            "",
        ],
    }
}

const fn ignored(reason: Reason) -> [&'static str; 4] {
    match reason {
        Reason::Title => [
            "A message without the title of incidents.",
            "DEBUG is ignored: title",
            "ignored.title",
            "",
        ],
        Reason::NearMiss => [
            "A message that may be an incident: kept as a near miss.",
            "WARN is kept as a near miss",
            "near_misses.unread",
            "messages that may be incidents",
        ],
        Reason::NoBot => [
            "A message with the title, posted by a person.",
            "WARN a person posted it, and not a bot",
            "apps.0.refused",
            "were not taken (no_bot)",
        ],
        Reason::BotNotAllowed => [
            "A message with the title, posted by a bot that is not in `bots`.",
            "WARN its bot is not in `bots`",
            "apps.0.refused",
            "were not taken (bot_not_allowed)",
        ],
        Reason::Channel => [
            "A message with the title, in a channel that is not in `channels`. Without the title \
             it is logged at DEBUG.",
            "WARN its channel is not in `channels`",
            "apps.0.refused",
            "were not taken (channel)",
        ],
        Reason::Unfurl => [
            "A message with the title in a page or message that was linked to.",
            "WARN the title is that of a page or message",
            "apps.0.refused",
            "were not taken (unfurl)",
        ],
        Reason::Subtype => [
            "A message that is not a post, such as a join or a topic.",
            "DEBUG is ignored: subtype",
            "ignored.subtype",
            "",
        ],
    }
}
