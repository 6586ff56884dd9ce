//! The file of a preset, as it is written.

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
    /// Notes for the documentation that a user should read first.
    #[serde(default)]
    pub(super) notes: String,
    /// Address of the receiver, if it is the same for every customer.
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) send: Transport,
    #[serde(default)]
    pub(super) params: Params,
    #[serde(default)]
    pub(super) auth: Vec<AuthFile>,
    /// Name of each level at the receiver.
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

/// A look-up before the request: does the receiver have the alert already?
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookupFile {
    /// Condition on `params` under which the look-up is made.
    pub(super) when: Option<String>,
    #[serde(default = "get")]
    pub(super) method: MethodFile,
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Option<String>,
    /// Holds if the receiver has the alert.
    pub(super) found: String,
    /// Holds if the answer is valid; otherwise the look-up is made again.
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

/// The way in which a rendered alert is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// An HTTP request.
    #[default]
    Http,
    /// A mail by SMTP, whose body is `{from, to, subject, text, urgent}`.
    Email,
    /// A line on standard output.
    Stdout,
    /// Not sent: a reader with the parameter `feed_token` asks the relay for it.
    Feed,
}

impl Transport {
    /// Beginning of the destination's URL.
    pub(in crate::destination) const fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["https", "http"],
            Self::Email => &["smtps", "smtp"],
            Self::Stdout => &["stdout"],
            Self::Feed => &["feed"],
        }
    }
}

/// Limits of the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the body. A larger body is not sent.
    pub body_bytes: Option<usize>,
    /// Characters of the text at each JSON pointer; `*` stands for any item of a list.
    pub chars: BTreeMap<String, usize>,
}

/// An example of an answer, from the receiver's documentation or a live receiver, with its meaning.
/// Tried when the preset is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// `true` if the answer is to the look-up and not to the request.
    #[serde(default)]
    pub lookup: bool,
    /// HTTP status of the answer.
    pub status: u16,
    /// Body of the answer.
    #[serde(default)]
    pub body: String,
    /// Meaning of the answer.
    pub means: Meaning,
}

/// The meaning of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// The alert is taken; of a look-up: the alert is not there yet.
    Delivered,
    /// The receiver had the alert already.
    Duplicate,
    /// The receiver is at fault.
    Retry,
    /// The alert is at fault.
    AlertFault,
}
