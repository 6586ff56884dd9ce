//! Requests of a preset: the one that sends an alert, and the look-up before it.

use reqwest::{
    Method,
    header::{HeaderName, HeaderValue},
};

use super::{answer::AnswerRules, template::RequestTemplates};

/// One request, and the rules for its answer.
pub(in crate::destination) struct Step {
    pub(super) kind: Kind,
    pub(in crate::destination) method: Method,
    pub(in crate::destination) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Body,
    pub(super) templates: RequestTemplates,
    pub(in crate::destination) rules: AnswerRules,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Look-up: does the receiver have the alert already?
    LookUp,
    /// Request that sends the alert.
    Request,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    WholeAlert,
    Template,
}

/// The parts of a request that depend on the alert.
pub(in crate::destination) struct Rendered<'a> {
    pub(in crate::destination) path: String,
    pub(in crate::destination) query: Vec<(&'a str, String)>,
    pub(in crate::destination) body: Vec<u8>,
}
