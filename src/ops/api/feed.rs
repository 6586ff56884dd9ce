//! `GET /feed`: the items that a feed has for its reader. Each feed has a token of its own, and no
//! other token opens it.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, request},
};
use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::{Answer, Api, PREFIX, Params, Shared, alerts::number};
use crate::{
    http_server::Peer,
    ids::DestinationName,
    logging::chain,
    ops::{
        FeedKey, FeedWish, NoItems, Problem,
        auth::carries,
        view::{FeedItem, FeedPage},
    },
    store::FEED_PAGE_MAX_ITEMS,
};

/// Default and maximum of the items of a page.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = FEED_PAGE_MAX_ITEMS;

/// Longest wait of a reader; most proxies wait longer.
const MAX_WAIT: Duration = Duration::from_secs(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    after: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    destination: Option<String>,
}

/// Handles `GET /feed?after=SEQ[&limit=][&wait=][&destination=]`.
pub(super) async fn read(
    State(api): Shared,
    request: request::Parts,
    wish: Result<Params<Wish>, Problem>,
) -> Answer<FeedPage> {
    let opened = api.opened_by(&request.headers);
    if opened.is_empty() {
        return Err(refusal(&api, &request));
    }
    // Only now: a stranger does not learn more than that a token is needed.
    let Params(wish) = wish?;
    let feed = one_of(&opened, wish.destination.as_deref())?;
    let after = number::<i64>("after", wish.after.as_deref())?.unwrap_or(0);
    let limit = number("limit", wish.limit.as_deref())?.unwrap_or(LIMIT);
    if after < 0 {
        return Err(Problem::bad_request("after: the number of an item, or 0 for all of them"));
    }
    if limit == 0 || limit > MAX_LIMIT {
        return Err(Problem::bad_request(format!("limit must be from 1 to {MAX_LIMIT}")));
    }
    let wait = seconds(wish.wait.as_deref())?;
    // The token is valid, so this request is not ended to make room for a stranger's.
    if let Some(peer) = request.extensions.get::<Peer>() {
        peer.mark_verified();
    }
    // Only a request that waits takes one of these places, since it holds its connection for long.
    let _long = if wait.is_zero() { None } else { Some(api.long_request()?) };
    let found = api.control().read(feed, FeedWish { after, limit, wait }).await;
    let found = found.map_err(|why| no_items(why, after))?;
    let next = found.last().map_or(after, |last| last.seq);
    let items = found.into_iter().map(|item| {
        let alert = to_raw_value(&item.alert);
        alert.map(|alert| FeedItem { seq: item.seq, alert })
    });
    let items = items.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(error = chain(&error), "an alert cannot be written as JSON");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "an alert cannot be written as JSON")
    })?;
    Ok(Json(FeedPage { items, next }))
}

impl Api {
    /// Returns the feeds whose token the request carries. A token file that was just rotated is
    /// read again first.
    fn opened_by(&self, headers: &HeaderMap) -> Vec<FeedKey> {
        let mut feeds = self.control().feeds();
        let is_open = |feed: &FeedKey| {
            carries(&feed.token, headers)
                || feed.token.refresh_if_touched().unwrap_or(false) && carries(&feed.token, headers)
        };
        feeds.retain(is_open);
        feeds
    }
}

/// Returns the refusal of a request that does not open any feed.
fn refusal(api: &Api, request: &request::Parts) -> Problem {
    if api.control().feeds().is_empty() {
        let open = api.auth.check(&request.method, &request.uri, &request.headers);
        return open.map_or_else(
            |problem| problem,
            |()| {
                Problem::not_found(format!(
                    "there is nothing at {PREFIX}/feed: no destination has `preset: feed`"
                ))
            },
        );
    }
    let detail = "send the destination's `feed_token` as `Authorization: Bearer TOKEN`";
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// Returns the feed that a request names, or the only one that its token opens.
fn one_of<'f>(opened: &'f [FeedKey], named: Option<&str>) -> Result<&'f DestinationName, Problem> {
    let list = || opened.iter().map(|feed| feed.name.as_str()).collect::<Vec<_>>().join(", ");
    match (opened, named) {
        ([only], None) => Ok(&only.name),
        (_, None) => Err(Problem::bad_request(format!(
            "this token opens several feeds: say which by ?destination=NAME, one of {}",
            list()
        ))),
        (_, Some(name)) => {
            let found = opened.iter().find(|feed| feed.name.as_str() == name);
            found.map(|feed| &feed.name).ok_or_else(|| {
                Problem::not_found(format!("this token opens no feed `{name}`, but {}", list()))
            })
        }
    }
}

/// Parses a number of seconds such as `20s`. An empty text stands for no wait.
fn seconds(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Duration::ZERO);
    };
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    number.map(Duration::from_secs).filter(|wait| *wait <= MAX_WAIT).ok_or_else(|| {
        let most = MAX_WAIT.as_secs();
        Problem::bad_request(format!("wait: `{text}` is not from 0s to {most}s, such as 20s"))
    })
}

fn no_items(why: NoItems, after: i64) -> Problem {
    match why {
        NoItems::Store(error) => error.into(),
        NoItems::Gone => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the configuration has just changed: ask again",
        ),
        NoItems::Beyond(end) => Problem::conflict(format!(
            "after: no item has a number beyond {end}, so {after} is not one of this feed's; \
             nothing was marked as delivered. Begin with after=0 for all that is kept"
        )),
    }
}
