//! Why a call of the Web API brought nothing, by what to do about it.

use std::fmt;

use crate::clock::Timestamp;

/// A word of Slack's vocabulary, such as `not_in_channel`. Anything else that stands in its place
/// is left out: it could be anything, a token included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code(String);

/// No word of Slack's is longer.
const CODE_CHARS: usize = 80;

impl Code {
    pub(super) fn new(text: &str) -> Self {
        let is_word = text.len() <= CODE_CHARS
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_:.,".contains(&byte));
        Self(if is_word { text.to_owned() } else { "unknown".to_owned() })
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The token is no longer one: nothing is asked with it any more.
    #[error("Slack does not take the bot token ({0})")]
    Token(Code),
    /// Somebody must change something in Slack.
    #[error("Slack refuses: {code}{}", needed_text(.needed))]
    Configuration {
        /// What is wrong.
        code: Code,
        /// The scope that is missing, or empty.
        needed: Code,
    },
    /// Too many calls, by Slack's word or by its published allowance.
    #[error("Slack's rate limit is reached")]
    Throttled {
        /// When the method may be called again.
        until: Timestamp,
    },
    /// It may work a moment later.
    #[error("Slack's Web API failed")]
    Transient(#[source] Failure),
    /// We asked for something that does not exist, such as a page whose cursor has expired.
    #[error("Slack does not understand the request: {0}")]
    Ours(Code),
}

/// What failed for the moment.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer within the time limit")]
    TimedOut,
    /// No connection, or it broke.
    #[error("no connection")]
    Network(#[source] reqwest::Error),
    /// The configured proxy is not there, or lets nothing through.
    #[error("no connection through the proxy (`slack.proxy`, or `proxy` of the app)")]
    Proxy(#[source] reqwest::Error),
    /// Whoever answers is not trusted.
    #[error(
        "the server's certificate is not trusted (an authority of your own belongs in \
         `slack.ca_file`, or in `ca_file` of the app)"
    )]
    Untrusted(#[source] reqwest::Error),
    /// An HTTP status that says nothing about the request.
    #[error("status {0}")]
    Status(u16),
    /// The answer is no JSON object.
    #[error("the answer is not JSON")]
    NotJson,
    /// The answer is larger than any page.
    #[error("the answer is too large")]
    TooLarge,
    /// Slack says so.
    #[error("{0}")]
    Slack(Code),
}

fn needed_text(needed: &Code) -> String {
    if needed.as_str().is_empty() { String::new() } else { format!(" (needs {needed})") }
}

/// Slack's words for a token that is none any more.
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

/// Slack's words for what a person must change.
const CONFIGURATION: &[&str] = &[
    "missing_scope",
    "no_permission",
    "not_in_channel",
    "channel_not_found",
    "channel_is_limited_access",
    "team_access_not_granted",
    "enterprise_is_restricted",
    "accesslimited",
    "ekm_access_denied",
    "deprecated_endpoint",
    "method_deprecated",
];

/// Slack's words for a request that we should not have made.
const OURS: &[&str] = &[
    "invalid_cursor",
    "invalid_ts_oldest",
    "invalid_ts_latest",
    "invalid_limit",
    "invalid_types",
    "invalid_arguments",
    "invalid_form_data",
];

/// An answer with `"ok": false`.
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) needed: Code,
}

impl Refusal {
    /// The error; `retry_at` counts if Slack says that there were too many calls. A word that is
    /// not known is taken for a passing failure: then nothing stops for good.
    pub(super) fn at(self, retry_at: Timestamp) -> ApiError {
        let Self { code, needed } = self;
        let is_one_of = |words: &[&str]| words.contains(&code.as_str());
        if ["ratelimited", "rate_limited"].contains(&code.as_str()) {
            ApiError::Throttled { until: retry_at }
        } else if is_one_of(TOKEN) {
            ApiError::Token(code)
        } else if is_one_of(CONFIGURATION) {
            ApiError::Configuration { code, needed }
        } else if is_one_of(OURS) {
            ApiError::Ours(code)
        } else {
            ApiError::Transient(Failure::Slack(code))
        }
    }
}

impl ApiError {
    /// The call's result, as a metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Configuration { .. } => "configuration",
            Self::Throttled { .. } => "throttled",
            Self::Transient(_) => "transient",
            Self::Ours(_) => "ours",
        }
    }

    /// Slack's word for it, if there is one.
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
        refusal.at(Timestamp::from_seconds(7))
    }

    #[test]
    fn every_class_has_its_words() {
        for (code, label) in [
            ("token_revoked", "token"),
            ("invalid_auth", "token"),
            ("missing_scope", "configuration"),
            ("not_in_channel", "configuration"),
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
    fn what_is_no_word_of_slacks_is_not_repeated() {
        for text in ["xoxb-12-34-abc", "Bearer abc", "a b", "É", &"a".repeat(81)] {
            assert_eq!(Code::new(text).as_str(), "unknown", "{text}");
        }
    }
}
