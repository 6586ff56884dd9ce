//! Answer to a reader of a feed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The answer of `GET /api/v1/feed`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct FeedPage {
    /// The items, in the order of their numbers.
    pub items: Vec<FeedItem>,
    /// The `after` of the next request, once these are taken.
    pub next: i64,
}

/// An item of a feed.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct FeedItem {
    /// Its number, larger than that of every item before it.
    pub seq: i64,
    /// The alert, version 1.
    #[schemars(with = "serde_json::Value")]
    pub alert: Box<RawValue>,
}
