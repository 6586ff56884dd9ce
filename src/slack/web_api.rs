//! A client of Slack's Web API with the methods that catch-up and `doctor` need: the identity of
//! the bot, the channels, and the history of one.
//!
//! One call is one request: nothing is retried here. The token is sent in a header only, and is not
//! in any error; of Slack's answers only words of its own vocabulary get into errors. Every method
//! keeps to Slack's published rate limit (docs.slack.dev/apis/web-api/rate-limits): a call that
//! would exceed it is refused with the time until the next is allowed.

mod answers;
mod body;
mod error;
mod pages;
mod throttle;
mod time;
mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{
    Url,
    header::{self, HeaderMap},
};

pub use self::{
    answers::{Channel, ChannelPage, HistoryPage, HistoryQuery, Identity},
    error::{ApiError, Code, Failure},
    pages::{Astray, Pages},
    time::{Clocks, Moment},
};
use self::{
    body::{ANSWER_BYTES, Hold, MESSAGE_BYTES},
    throttle::Throttle,
    wire::Reply,
};
use crate::{
    clock::{Clock, Timestamp},
    http_client::{self, ClientError},
    ids::ChannelId,
    metrics::{Metric, Metrics},
    secret::Secret,
};

/// Messages or channels of a page: the most that Slack recommends
/// (docs.slack.dev/apis/web-api/pagination).
pub const PAGE: usize = 200;

/// Messages of a page for an app that is distributed outside Slack's Marketplace.
pub const LIMITED_PAGE: usize = 15;

/// Limit of one whole request. Below the 30 s in which every loop must show a sign of life.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Wait after a 429 that does not give one.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Bounds of the wait that a 429 can ask for.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Address and credentials of the Web API.
#[derive(Clone, Debug)]
pub struct WebApiSettings {
    /// Base URL, usually `https://slack.com/api`.
    pub url: Url,
    /// Bot token. Without one, [`WebApi::auth_test`] still tells Slack's time.
    pub token: Option<Secret>,
    /// Workspace for which an organisation-wide token is used.
    pub team: Option<String>,
    /// Proxy and trusted authorities.
    pub client: http_client::Settings,
}

/// A method of the Web API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Identity of the token.
    AuthTest,
    /// List of the channels.
    List,
    /// Description of one channel.
    Info,
    /// Messages of a channel.
    History,
}

impl Method {
    const ALL: [Self; 4] = [Self::AuthTest, Self::List, Self::Info, Self::History];

    /// Returns Slack's name of the method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthTest => "auth.test",
            Self::List => "conversations.list",
            Self::Info => "conversations.info",
            Self::History => "conversations.history",
        }
    }

    /// Returns the calls a minute: tiers 2 and 3; for `auth.test` Slack says "hundreds".
    const fn allowance(self) -> usize {
        match self {
            Self::AuthTest => 100,
            Self::List => 20,
            Self::Info | Self::History => 50,
        }
    }
}

/// Client of the Web API with one token.
pub struct WebApi {
    client: reqwest::Client,
    settings: WebApiSettings,
    clock: Clock,
    metrics: Metrics,
    throttles: Mutex<BTreeMap<Method, Throttle>>,
    times: Mutex<Clocks>,
}

impl fmt::Debug for WebApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebApi").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A successful answer, with `"ok": true`.
struct Answer {
    text: String,
    headers: HeaderMap,
    hold: Option<Hold>,
}

impl WebApi {
    /// Creates a client. Calls nothing.
    ///
    /// # Errors
    /// [`ClientError`]: the HTTP client cannot be built.
    pub fn new(
        settings: WebApiSettings,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, ClientError> {
        let throttle = |method: Method| (method, Throttle::new(method.allowance()));
        Ok(Self {
            client: http_client::build(&settings.client)?,
            settings,
            clock,
            metrics,
            throttles: Mutex::new(Method::ALL.into_iter().map(throttle).collect()),
            times: Mutex::default(),
        })
    }

    /// Returns the time by Slack's newest answer in whole seconds, rounded down, or `None` before
    /// the first answer.
    pub fn slack_now(&self) -> Option<Timestamp> {
        self.times().slack(self.clock.uptime())
    }

    /// Returns the time by our clock and by Slack's, either of which may be wrong.
    pub fn moment(&self) -> Moment {
        self.times().now(self.clock.now(), self.clock.uptime())
    }

    fn times(&self) -> MutexGuard<'_, Clocks> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number that changes with the token.
    pub fn token_version(&self) -> Option<u64> {
        self.settings.token.as_ref().map(Secret::version)
    }

    /// Limits history to one call a minute, or returns to the usual rate.
    pub fn limit_history(&self, is_limited: bool) {
        let allowance = if is_limited { 1 } else { Method::History.allowance() };
        self.throttled(Method::History, |throttle| throttle.set_allowance(allowance));
    }

    /// Returns the identity of the token (docs.slack.dev/reference/methods/auth.test).
    ///
    /// # Errors
    /// [`ApiError`] if the call failed or the answer is not complete.
    pub async fn auth_test(&self) -> Result<Identity, ApiError> {
        let answer = self.call(Method::AuthTest, &[], ANSWER_BYTES).await?;
        let reply = wire::reply(&answer.text)?;
        reply.identity()?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|value| value.to_str().ok());
        let scopes = scopes.unwrap_or_default().split(',').map(str::trim);
        Ok(Identity {
            team_id: reply.team_id.into_owned(),
            user_id: reply.user_id.into_owned(),
            scopes: scopes.filter(|scope| !scope.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// Returns a page of all public channels and of the private ones of which the bot is a member
    /// (docs.slack.dev/reference/methods/conversations.list).
    ///
    /// # Errors
    /// [`ApiError`] if the call failed or the answer is not complete.
    pub async fn channels(&self, cursor: Option<&str>) -> Result<ChannelPage, ApiError> {
        let mut query = vec![
            ("types", "public_channel,private_channel"),
            ("exclude_archived", "true"),
            ("limit", "200"),
        ];
        query.extend(self.settings.team.as_deref().map(|team| ("team_id", team)));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let answer = self.call(Method::List, &query, ANSWER_BYTES).await?;
        let reply = wire::reply(&answer.text)?;
        let next_cursor = reply.next_cursor()?;
        Ok(ChannelPage { channels: reply.channels()?, next_cursor })
    }

    /// Returns one channel (docs.slack.dev/reference/methods/conversations.info).
    ///
    /// # Errors
    /// [`ApiError`] if the call failed or the answer is not complete.
    pub async fn channel(&self, id: &ChannelId) -> Result<Channel, ApiError> {
        let query = [("channel", id.as_str())];
        let answer = self.call(Method::Info, &query, ANSWER_BYTES).await?;
        wire::reply(&answer.text)?.channel()
    }

    /// Returns a page of a channel's history
    /// (docs.slack.dev/reference/methods/conversations.history).
    ///
    /// # Errors
    /// [`ApiError`] if the call failed; [`Failure::TooLarge`] if fewer messages should be asked
    /// for.
    pub async fn history(&self, query: &HistoryQuery) -> Result<HistoryPage, ApiError> {
        let (oldest, latest) = (query.oldest.to_string(), query.latest.to_string());
        let limit = query.limit.clamp(1, PAGE);
        // A page that is too large is asked for again with fewer messages. Only a single message
        // has to be taken at any size.
        let max_bytes = if limit == 1 { MESSAGE_BYTES } else { ANSWER_BYTES };
        let limit = limit.to_string();
        // Inclusive, since two windows meet at the timestamp of a message.
        let mut pairs = vec![
            ("channel", query.channel.as_str()),
            ("oldest", &oldest),
            ("latest", &latest),
            ("inclusive", "true"),
            ("limit", &limit),
        ];
        pairs.extend(query.cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = self.call(Method::History, &pairs, max_bytes).await?;
        let reply = wire::reply(&answer.text)?;
        Ok(HistoryPage {
            messages: reply.messages(&query.channel)?,
            next_cursor: reply.next_cursor()?,
            has_more: reply.has_more,
            bytes: answer.text.len(),
            hold: answer.hold,
        })
    }

    async fn call(
        &self,
        method: Method,
        query: &[(&str, &str)],
        max_bytes: usize,
    ) -> Result<Answer, ApiError> {
        let now = self.clock.uptime();
        self.throttled(method, |throttle| throttle.take(now))
            .map_err(|until| ApiError::Throttled { wait: until.saturating_sub(now) })?;
        let exchange = tokio::time::timeout(TIMEOUT, self.exchange(method, query, max_bytes));
        let result =
            exchange.await.unwrap_or_else(|_elapsed| Err(ApiError::Transient(Failure::TimedOut)));
        // Slack counted the call at some time up to now, so the call's minute begins now.
        self.throttled(method, |throttle| {
            let end = self.clock.uptime();
            throttle.end(now, end);
            if let Err(ApiError::Throttled { wait }) = &result {
                throttle.block(end.saturating_add(*wait));
            }
        });
        let label = result.as_ref().map_or_else(ApiError::label, |_answer| "ok");
        self.metrics.counter(Metric::SlackApiCalls, &[method.as_str(), label]).increment(1);
        result
    }

    async fn exchange(
        &self,
        method: Method,
        query: &[(&str, &str)],
        max_bytes: usize,
    ) -> Result<Answer, ApiError> {
        let mut url = self.settings.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}", method.as_str()));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = match method {
            Method::AuthTest => self.client.post(url),
            Method::List | Method::Info | Method::History => self.client.get(url),
        };
        let request = match &self.settings.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        let mut response = request.send().await.map_err(|error| self.failed(error))?;
        // A refusal tells Slack's time too.
        self.note_time(response.headers());
        if response.status().as_u16() == 429 {
            let wait = self.retry_after(response.headers());
            return Err(ApiError::Throttled { wait });
        }
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if status.is_server_error() {
            return Err(ApiError::Transient(Failure::Status(status.as_u16())));
        }
        let (body, hold) = body::read(response, max_bytes, |error| self.failed(error)).await?;
        let text = body::readable(body);
        // Slack's error in the body says more than the status, which counts only if the body cannot
        // be parsed.
        let reply = match Reply::parse(&text) {
            Ok(reply) => reply,
            Err(_unparsable) if !status.is_success() => {
                return Err(ApiError::Transient(Failure::Status(status.as_u16())));
            }
            Err(_unparsable) => return Err(ApiError::Transient(Failure::NotJson)),
        };
        match reply.error() {
            None => Ok(Answer { text, headers, hold }),
            Some(error) => Err(error.after(self.retry_after(&headers))),
        }
    }

    fn failed(&self, error: reqwest::Error) -> ApiError {
        ApiError::Transient(if error.is_timeout() {
            Failure::TimedOut
        } else if http_client::is_untrusted(&error) {
            Failure::Untrusted(error.without_url())
        } else if error.is_connect() && self.settings.client.proxy.is_some() {
            Failure::Proxy(error.without_url())
        } else {
            Failure::Network(error.without_url())
        })
    }

    fn throttled<T>(&self, method: Method, act: impl FnOnce(&mut Throttle) -> T) -> T {
        let mut all = self.throttles.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(method).or_insert_with(|| Throttle::new(method.allowance())))
    }

    /// Returns the wait that an answer asks for, in seconds as Slack documents. Anything else, a
    /// date included, counts as missing.
    fn retry_after(&self, headers: &HeaderMap) -> Duration {
        let given = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = given.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let wait = asked.unwrap_or(RETRY_AFTER).clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        wait + Duration::from_secs(1).mul_f64(self.clock.jitter())
    }

    fn note_time(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let date = date.and_then(|value| httpdate::parse_http_date(value).ok());
        let since = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        if let Some(seconds) = since.and_then(|since| i64::try_from(since.as_secs()).ok()) {
            let date = Timestamp::from_seconds(seconds);
            self.times().note(date, self.clock.now(), self.clock.uptime());
        }
    }
}
