//! Answer to a reader of a feed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Answer of `GET /api/v1/feed`.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct FeedPage {
    /// Items in the order of their numbers.
    pub items: Vec<FeedItem>,
    /// Value of `after` for the next request, once these items are taken.
    pub next: i64,
}

/// An item of a feed.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct FeedItem {
    /// Number of the item, larger than that of every item before it.
    pub seq: i64,
    /// Alert, version 1.
    #[schemars(with = "serde_json::Value")]
    pub alert: Box<RawValue>,
}
