//! Where an operator sees what became of an event.

use super::Fate;
use crate::{code_defender::matcher::Reason, trouble::Outcome};

/// Returns everything that can become of an event, and where an operator sees it.
pub fn outcomes() -> impl Iterator<Item = Outcome> {
    Fate::ALL.into_iter().map(Fate::seen)
}

impl Fate {
    #[expect(clippy::too_many_lines, reason = "it is a table, one row for each variant")]
    const fn seen(self) -> Outcome {
        let (outcome, reason) = self.labels();
        let [what, log, status, doctor] = match self {
            Self::Accepted => {
                ["An incident is stored for its destinations.", "INFO accepted", "apps.0.bots", ""]
            }
            Self::Unconfirmed => [
                "The same, while the name of a configured channel is not resolved: it may be from \
                 another channel.",
                "INFO accepted",
                "apps.0.catch_up.unresolved",
                "history is not read",
            ],
            Self::Unrouted => [
                "An incident is stored, and no destination wants it.",
                "INFO accepted, but no destination takes it",
                "unrouted",
                "no destination wanted",
            ],
            Self::Duplicate => ["The incident is stored already.", "DEBUG is known", "", ""],
            Self::KnownEdit => [
                "An edit of a message whose incident is stored already.",
                "INFO an edit of the message",
                "ignored.known_edit",
                "",
            ],
            Self::Ignored(reason) => ignored(reason),
            Self::Type => {
                ["An event that is not a message.", "DEBUG is ignored: type", "ignored.type", ""]
            }
            Self::Lifecycle => [
                "Slack reports a change of the app or of a channel.",
                "WARN Slack reports a change",
                "ignored.lifecycle",
                "",
            ],
            Self::Unparsable => [
                "An authentic body that cannot be read.",
                "WARN cannot be read",
                "quarantine.unread",
                "authentic requests that could not be read",
            ],
            Self::Team => [
                "An authentic event of a workspace that no app with its secret has as `team`.",
                "WARN no app with that signing secret",
                "ignored.team",
                "",
            ],
            Self::Unsettled => [
                "The same, while the secret of the app with that `team` may follow: 503.",
                "WARN are answered 503",
                "",
                "",
            ],
            Self::UnknownApp => [
                "A post to the path of an app that is not configured: 404.",
                "WARN no configured app has that path",
                "",
                "",
            ],
            Self::BadSignature => [
                "A request that is well formed, recent, and signed with another secret: 401.",
                "WARN events are refused with 401",
                "apps.0.signing.rejected",
                "a wrong signature",
            ],
            Self::Stale => [
                "A request with a timestamp of more than 300 s ago or ahead: 401.",
                "DEBUG a request was refused",
                "apps.0.signing.strangers",
                "",
            ],
            Self::TooLarge => [
                "A request with more than 4 MiB of body or too many headers: 413 or 431.",
                "DEBUG a request was refused",
                "",
                "",
            ],
            Self::Slow => [
                "A request whose body does not arrive in time: 408.",
                "DEBUG a request was refused",
                "",
                "",
            ],
            Self::Overload => [
                "A request for which newer ones leave no room: 503.",
                "WARN fill the room for them",
                "",
                "",
            ],
            Self::Store => [
                "An incident that could not be stored: 503, and Slack sends it again.",
                "ERROR is not stored, and Slack will send it again",
                "not_ready_reason",
                "takes no alerts",
            ],
        };
        Outcome { outcome, reason, what, log, status, doctor }
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
            "A message with the title, by a person. Without the title: DEBUG, and only counted.",
            "WARN a person posted it, and not a bot",
            "apps.0.refused",
            "were not taken (no_bot)",
        ],
        Reason::BotNotAllowed => [
            "The same, by a bot that is not in `bots`.",
            "WARN its bot is not in `bots`",
            "apps.0.refused",
            "were not taken (bot_not_allowed)",
        ],
        Reason::Channel => [
            "The same, in a channel that is not in `channels`.",
            "WARN its channel is not in `channels`",
            "apps.0.refused",
            "were not taken (channel)",
        ],
        Reason::Unfurl => [
            "The same, with the title in a page or message that was linked to.",
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
