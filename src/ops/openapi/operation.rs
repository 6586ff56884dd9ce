//! The parts of a documented operation.

use schemars::{Schema, SchemaGenerator};

/// A method of a path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) listener: Listener,
    /// One sentence without a full stop.
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    pub(super) headers: &'static [Parameter],
    pub(super) request: Request,
    pub(super) answer: Answer,
    /// Statuses other than 200, each with its meaning.
    pub(super) refusals: &'static [(u16, &'static str)],
}

/// A listener, and how its requests prove that they are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Listener {
    /// The listener of `server.listen`.
    Public,
    /// The listener of `server.ops_listen`, without a token.
    Health,
    /// The listener of `server.ops_listen`, with the `ops_token`.
    Api,
    /// The listener of `server.ops_listen`, with the `feed_token` of a destination.
    Feed,
}

impl Listener {
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Public => "Public listener",
            Self::Health => "Health and metrics",
            Self::Api => "API for operators",
            Self::Feed => "Feed",
        }
    }

    /// Returns whether refusals are problem documents. The others are plain text or empty.
    pub(super) const fn has_problems(self) -> bool {
        matches!(self, Self::Api | Self::Feed)
    }
}

/// A parameter of the query or a header.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) meaning: &'static str,
}

/// The body of a request.
pub(super) enum Request {
    /// There is no body.
    Empty,
    /// The parameters of the query may be sent as an object instead.
    QueryAsJson,
    /// JSON of the sender's own form, with a description.
    Json(&'static str),
}

/// The body of an answer with status 200.
pub(super) enum Answer {
    /// A type of [`view`](crate::ops::view).
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Text or JSON, with a description.
    Other(&'static str, &'static str),
    /// There is no body.
    Empty,
}
