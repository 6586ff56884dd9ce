//! Errors of calls to the Web API, by what to do about them.

use std::{fmt, time::Duration};

/// A word of Slack's vocabulary, such as `not_in_channel`. Anything else in its place is dropped:
/// it could be anything, a token included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code(String);

/// Limit of a word; Slack's are shorter.
const CODE_CHARS: usize = 80;

impl Code {
    pub(super) fn new(text: &str) -> Self {
        let is_word = text.len() <= CODE_CHARS
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_:.,".contains(&byte));
        Self(if is_word { text.to_owned() } else { "unknown".to_owned() })
    }

    /// Returns the word, or an empty text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reason for which a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The token is not valid any more and is not used again.
    #[error("Slack does not take the bot token ({0})")]
    Token(Code),
    /// A person must change something in Slack.
    #[error("Slack refuses: {code}{}", needed_text(.needed))]
    Configuration {
        /// Slack's name of the problem.
        code: Code,
        /// Missing scope, or empty.
        needed: Code,
    },
    /// Too many calls, by Slack's answer or by its published rate limit.
    #[error("Slack's rate limit is reached")]
    Throttled {
        /// Time for which the method may not be called.
        wait: Duration,
    },
    /// A failure that may pass in a moment.
    #[error("Slack's Web API failed")]
    Transient(#[source] Failure),
    /// The request names something that does not exist, such as a page whose cursor has expired.
    #[error("Slack does not understand the request: {0}")]
    Ours(Code),
}

/// Cause of a passing failure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There was no answer in time.
    #[error("no answer within the time limit")]
    TimedOut,
    /// There was no connection, or it broke.
    #[error("no connection")]
    Network(#[source] reqwest::Error),
    /// The configured proxy cannot be reached, or lets nothing through.
    #[error("no connection through the proxy (`slack.proxy`, or `proxy` of the app)")]
    Proxy(#[source] reqwest::Error),
    /// The server's certificate is not trusted.
    #[error(
        "the server's certificate is not trusted (an authority of your own belongs in \
         `slack.ca_file`, or in `ca_file` of the app)"
    )]
    Untrusted(#[source] reqwest::Error),
    /// An HTTP status that says nothing about the request.
    #[error("status {0}")]
    Status(u16),
    /// The answer is not a JSON object.
    #[error("the answer is not JSON")]
    NotJson,
    /// The answer does not have the form that Slack documents for the method.
    #[error("the answer is not complete: `{0}` is missing or of the wrong type")]
    Incomplete(&'static str),
    /// The answer is larger than the limit.
    #[error("the answer is too large")]
    TooLarge,
    /// An error of Slack's that is not known here.
    #[error("{0}")]
    Slack(Code),
}

fn needed_text(needed: &Code) -> String {
    if needed.as_str().is_empty() { String::new() } else { format!(" (needs {needed})") }
}

/// Slack's words for a token that is not valid any more.
const TOKEN: &[&str] = &[
    "invalid_auth",
    "not_authed",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "two_factor_setup_required",
    "access_denied",
];

/// Advice to invite the bot.
const INVITE: &str = "open the channel in Slack and type: /invite @slack-soar-relay (the name of \
                      the app)";

/// Advice to name the workspace.
const TEAM: &str = "set `team` of the app to the id of the workspace (T...): an organisation-wide \
                    token has to say which one it means";

/// Advice to let the app into the workspace.
const GRANT: &str = "let an administrator of the organisation add the app to the workspace that \
                     `team` names";

/// Advice to change the app's scopes.
const SCOPE: &str = "in the app's settings: OAuth & Permissions, Bot Token Scopes, add what is \
                     missing, then Reinstall to Workspace";

/// Advice to ask for an exception from a policy.
const ADMINISTRATOR: &str = "ask an administrator of the workspace: a policy of theirs forbids it";

/// Advice to get a valid token.
const REINSTALL: &str = "in the app's settings: OAuth & Permissions, Reinstall to Workspace, then \
                         put the new Bot User OAuth Token (xoxb-...) where `bot_token` points to";

/// Slack's words for what a person must change, with the advice
/// (docs.slack.dev/reference/methods/conversations.history and conversations.list, Errors).
const CONFIGURATION: &[(&str, &str)] = &[
    ("missing_scope", SCOPE),
    ("no_permission", SCOPE),
    ("not_in_channel", INVITE),
    (
        "channel_not_found",
        "compare the channel's id, which stands at the end of its details; if it \
        is a private channel, type in it: /invite @slack-soar-relay (the name of the app)",
    ),
    ("invalid_channel", "compare the channel's id, which stands at the end of its details"),
    ("method_not_supported_for_channel_type", "configure another channel: an app cannot read this"),
    ("channel_is_limited_access", ADMINISTRATOR),
    ("is_connected_org_channel", ADMINISTRATOR),
    ("missing_argument", TEAM),
    ("team_not_found", TEAM),
    ("invalid_team_id", TEAM),
    ("team_access_not_granted", GRANT),
    ("external_channel_migrating", "wait until Slack has moved the channel"),
    ("enterprise_is_restricted", ADMINISTRATOR),
    ("accesslimited", ADMINISTRATOR),
    ("restricted_action", ADMINISTRATOR),
    ("ekm_access_denied", ADMINISTRATOR),
    ("method_not_allowed", ADMINISTRATOR),
    ("deprecated_endpoint", "use a newer version of the relay"),
    ("method_deprecated", "use a newer version of the relay"),
    ("unknown_method", "compare `slack.api_url` with https://slack.com/api"),
];

/// Slack's words for a request that should not have been made.
const OURS: &[&str] = &[
    "invalid_cursor",
    "invalid_ts_oldest",
    "invalid_ts_latest",
    "invalid_limit",
    "invalid_types",
    "invalid_arguments",
    "invalid_form_data",
];

/// Contents of an answer with `"ok": false`, or without `ok`.
#[derive(Default)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) needed: Code,
}

impl Refusal {
    /// Returns the error. `wait` counts if Slack says that there were too many calls. An unknown
    /// word is taken for a passing failure, so that nothing stops for good.
    pub(super) fn after(self, wait: Duration) -> ApiError {
        let Self { code, needed } = self;
        let is_one_of = |words: &[&str]| words.contains(&code.as_str());
        if ["ratelimited", "rate_limited"].contains(&code.as_str()) {
            ApiError::Throttled { wait }
        } else if is_one_of(TOKEN) {
            ApiError::Token(code)
        } else if code.as_str().is_empty() {
            ApiError::Transient(Failure::Incomplete("ok"))
        } else if CONFIGURATION.iter().any(|(word, _)| *word == code.as_str()) {
            ApiError::Configuration { code, needed }
        } else if is_one_of(OURS) {
            ApiError::Ours(code)
        } else {
            ApiError::Transient(Failure::Slack(code))
        }
    }
}

impl ApiError {
    /// Returns the result of the call as a metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Configuration { .. } => "configuration",
            Self::Throttled { .. } => "throttled",
            Self::Transient(_) => "transient",
            Self::Ours(_) => "ours",
        }
    }

    /// Returns what a person can do about the error in Slack or in the configuration, or an empty
    /// text.
    pub fn cure(&self) -> &'static str {
        match self {
            Self::Token(_) => REINSTALL,
            Self::Configuration { code, .. } => {
                let known = CONFIGURATION.iter().find(|(word, _)| *word == code.as_str());
                known.map_or("", |(_, cure)| cure)
            }
            Self::Throttled { .. } | Self::Transient(_) | Self::Ours(_) => "",
        }
    }

    /// Returns Slack's name of the error, or an empty text.
    pub fn code(&self) -> &str {
        match self {
            Self::Token(code)
            | Self::Configuration { code, .. }
            | Self::Ours(code)
            | Self::Transient(Failure::Slack(code)) => code.as_str(),
            Self::Throttled { .. } => "ratelimited",
            Self::Transient(
                Failure::TimedOut
                | Failure::Network(_)
                | Failure::Proxy(_)
                | Failure::Untrusted(_)
                | Failure::Status(_)
                | Failure::NotJson
                | Failure::Incomplete(_)
                | Failure::TooLarge,
            ) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> ApiError {
        let refusal = Refusal { code: Code::new(code), needed: Code::new("groups:history") };
        refusal.after(Duration::from_secs(7))
    }

    #[test]
    fn every_class_has_its_words() {
        for (code, label) in [
            ("token_revoked", "token"),
            ("invalid_auth", "token"),
            ("missing_scope", "configuration"),
            ("not_in_channel", "configuration"),
            ("missing_argument", "configuration"),
            ("team_not_found", "configuration"),
            ("", "transient"),
            ("ratelimited", "throttled"),
            ("invalid_cursor", "ours"),
            ("internal_error", "transient"),
            ("a_word_of_tomorrow", "transient"),
        ] {
            assert_eq!(error(code).label(), label, "{code}");
        }
        assert_eq!(
            error("missing_scope").to_string(),
            "Slack refuses: missing_scope (needs groups:history)"
        );
    }

    #[test]
    fn whatever_a_person_must_change_says_how() {
        for (word, _) in CONFIGURATION {
            assert!(error(word).cure().len() > 20, "{word}");
        }
        assert!(error("missing_argument").cure().contains("`team`"));
        assert!(error("invalid_auth").cure().contains("`bot_token`"));
        assert_eq!(error("internal_error").cure(), "");
    }

    #[test]
    fn what_is_no_word_of_slacks_is_not_repeated() {
        for text in ["xoxb-12-34-abc", "Bearer abc", "a b", "É", &"a".repeat(81)] {
            assert_eq!(Code::new(text).as_str(), "unknown", "{text}");
        }
    }
}
