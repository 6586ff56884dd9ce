//! A preset as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::destination::{
    access::auth::AuthFile,
    preset::{
        answer::{AnswerFile, ReferenceFile},
        params::Params,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) preset: String,
    pub(super) about: String,
    /// What to know before using it, for the documentation.
    #[serde(default)]
    pub(super) notes: String,
    /// Where the receiver is, if it is the same place for everybody.
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) send: Transport,
    #[serde(default)]
    pub(super) params: Params,
    #[serde(default)]
    pub(super) auth: Vec<AuthFile>,
    /// What each level is called there.
    #[serde(default)]
    pub(super) severity: BTreeMap<String, serde_json::Value>,
    pub(super) lookup: Option<LookupFile>,
    pub(super) request: RequestFile,
    #[serde(default)]
    pub(super) answer: AnswerFile,
    #[serde(default)]
    pub(super) reference: ReferenceFile,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) examples: Vec<Example>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestFile {
    #[serde(default)]
    pub(super) method: MethodFile,
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Spanned<String>,
}

/// A question before the request: does the receiver have the alert already?
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupFile {
    /// A condition on `params`: when to ask.
    pub(super) when: Option<String>,
    #[serde(default = "get")]
    pub(super) method: MethodFile,
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Option<String>,
    /// Holds if it has.
    pub(super) found: String,
    /// Holds if that is an answer at all; else it is asked again.
    pub(super) answered: Option<String>,
    #[serde(default)]
    pub(super) reference: ReferenceFile,
}

const fn get() -> MethodFile {
    MethodFile::Get
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum MethodFile {
    Get,
    #[default]
    Post,
    Put,
    Patch,
}

/// How what a preset renders is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// As an HTTP request.
    #[default]
    Http,
    /// As a mail, by SMTP: the body is `{from, to, subject, text, urgent}`.
    Email,
    /// As a line on the standard output.
    Stdout,
    /// Not at all: it is read at the relay, by whoever has the parameter `feed_token`.
    Feed,
}

impl Transport {
    /// What the destination's URL begins with.
    pub(in crate::destination) const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["https", "http"],
            Self::Email => &["smtps", "smtp"],
            Self::Stdout => &["stdout"],
            Self::Feed => &["feed"],
        }
    }
}

/// What the receiver takes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the body. A larger one is not sent.
    pub body_bytes: Option<usize>,
    /// Characters of the text at each JSON pointer; `*` is any item of a list.
    pub chars: BTreeMap<String, usize>,
}

/// An answer of the receiver, as its documentation or a live one gives it, and what it means. It
/// is tried when the preset is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// Whether it answers the look-up instead of the request.
    #[serde(default)]
    pub lookup: bool,
    /// The status.
    pub status: u16,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// What the answer means.
    pub means: Meaning,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// Taken; of a look-up: the alert is not there yet.
    Delivered,
    /// It had it already.
    Duplicate,
    /// The receiver is at fault.
    Retry,
    /// The alert is at fault.
    AlertFault,
}
