//! Slack's Web API, played: it keeps channels, messages, threads and tokens, pages as Slack does,
//! limits calls by Slack's tiers, and misbehaves on demand. Its time is the test's clock.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use slack_soar_relay::{
    clock::{Clock, Timestamp},
    ids::MessageTs,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

use super::{PATIENCE, slack};

pub(crate) const TOKEN: &str = "xoxb-111-222-hunter2";
pub(crate) const TEAM: &str = "T0RELAYTEAM";
pub(crate) const BOT_USER: &str = "U0RELAYBOT1";
pub(crate) const CHANNEL: &str = "C0123456789";

/// Every scope that a relay with a token asks for.
const SCOPES: [&str; 4] = ["channels:history", "groups:history", "channels:read", "groups:read"];

/// Which end of a window the first page is at: Slack's documentation says both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Newest,
    Oldest,
}

/// Failure of one call.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// 429, with `Retry-After` or without.
    TooMany(Option<u64>),
    Status(u16),
    /// Answer with `"ok": false`.
    Error(&'static str),
    NotJson,
    Hang,
    /// The answer is held back until the test lets it go.
    Hold,
    /// The token is none any more, from this call on.
    Revoke,
    /// The call goes well, and then somebody posts so many incidents.
    Grow(u32),
    /// All cursors given before are forgotten.
    ForgetCursors,
    /// The answer's `Date` is so many seconds ahead.
    Date(i64),
    /// 200 with that body.
    Body(String),
}

/// Failures of the history of one channel, call after call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sick {
    /// Answer with `"ok": false`.
    Error(&'static str),
    /// Each page leads to the other.
    TwoCursors,
    /// Each page leads to another one, and none has a message.
    EverNewCursors,
}

#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) private: bool,
    pub(crate) member: bool,
    pub(crate) archived: bool,
    messages: BTreeMap<i64, Value>,
    /// Replies, which history does not show.
    threads: BTreeMap<i64, Vec<Value>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) status: u16,
}

pub(crate) struct State {
    clock: Clock,
    /// Slack's clock minus the relay's.
    pub(crate) skew_seconds: i64,
    /// Reason for which every token is refused, or `None`.
    tokens: BTreeMap<String, Option<&'static str>>,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) anchor: Anchor,
    /// 15 messages and one call a minute.
    pub(crate) limited: bool,
    /// Pages say that there is more and not where.
    pub(crate) without_cursors: bool,
    /// Number of channels that a page is cut from; those that do not match are left out afterwards.
    pub(crate) list_page: usize,
    generation: u32,
    pub(crate) sick: BTreeMap<&'static str, Sick>,
    /// Methods that answer `"ok": false`, and with which word.
    pub(crate) sick_methods: BTreeMap<&'static str, &'static str>,
    /// The token belongs to an organisation: a list needs a `team_id`.
    pub(crate) org_wide: bool,
    troubles: Vec<(&'static str, usize, Trouble)>,
    taken: BTreeMap<String, VecDeque<Timestamp>>,
    calls: Vec<Call>,
    count: watch::Sender<usize>,
    gate: Arc<Semaphore>,
}

pub(crate) struct FakeSlack {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    count: watch::Receiver<usize>,
    server: JoinHandle<()>,
}

impl Drop for FakeSlack {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeSlack {
    /// One public channel that the bot is in, and one good token.
    pub(crate) async fn new(clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, count) = watch::channel(0);
        let state = State {
            clock,
            skew_seconds: 0,
            tokens: BTreeMap::from([(TOKEN.to_owned(), None)]),
            scopes: SCOPES.to_vec(),
            channels: vec![Channel::new(CHANNEL, "cd_alerts")],
            anchor: Anchor::Newest,
            limited: false,
            without_cursors: false,
            list_page: 100,
            generation: 0,
            sick: BTreeMap::new(),
            sick_methods: BTreeMap::new(),
            org_wide: false,
            troubles: Vec::new(),
            taken: BTreeMap::new(),
            calls: Vec::new(),
            count: sender,
            gate: Arc::new(Semaphore::new(0)),
        };
        let state = Arc::new(Mutex::new(state));
        let server = super::soar::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, count, server }
    }

    pub(crate) fn api_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The call of that method after so many others of it goes wrong.
    pub(crate) fn trouble(&self, method: &'static str, after: usize, trouble: Trouble) {
        let mut state = self.state();
        let made = state.calls.iter().filter(|call| call.method == method).count();
        state.troubles.push((method, made + after, trouble));
    }

    /// Lets one answer go that is held back, or will be.
    pub(crate) fn release(&self) {
        self.state().gate.add_permits(1);
    }

    pub(crate) fn revoke(&self, why: Option<&'static str>) {
        self.state().tokens.insert(TOKEN.to_owned(), why);
    }

    /// Posts an incident now; returns its message.
    pub(crate) fn post(&self) -> Value {
        self.state().post_incident(CHANNEL)
    }

    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        let all = self.state().calls.clone();
        all.into_iter().filter(|call| call.method == method).collect()
    }

    pub(crate) fn all_calls(&self) -> usize {
        self.state().calls.len()
    }

    /// Waits until so many calls of any method have been made.
    pub(crate) async fn has_answered(&self, calls: usize) {
        let mut count = self.count.clone();
        let enough = count.wait_for(|count| *count >= calls);
        let waited = tokio::time::timeout(PATIENCE, enough).await.map(|found| drop(found.unwrap()));
        assert!(waited.is_ok(), "{} of {calls} calls", self.all_calls());
    }
}

impl Channel {
    pub(crate) fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            private: false,
            member: true,
            archived: false,
            messages: BTreeMap::new(),
            threads: BTreeMap::new(),
        }
    }

    fn entry(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "is_channel": !self.private,
            "is_private": self.private, "is_member": self.member, "is_archived": self.archived,
        })
    }
}

/// An answer: status, `Retry-After`, body.
type Answer = (u16, Option<u64>, Value);

fn fine(mut body: Value) -> Answer {
    body["ok"] = json!(true);
    (200, None, body)
}

fn refused(code: &str) -> Answer {
    (200, None, json!({"ok": false, "error": code}))
}

impl State {
    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        let now = self.clock.now().micros() + self.skew_seconds * 1_000_000;
        Timestamp::from_micros(now)
    }

    pub(crate) fn channel(&mut self, id: &str) -> &mut Channel {
        self.channels.iter_mut().find(|channel| channel.id == id).unwrap()
    }

    /// Gives a channel another id, as sharing a private one does. The old one is unknown then.
    pub(crate) fn change_id(&mut self, old: &str, new: &str) {
        new.clone_into(&mut self.channel(old).id);
    }

    /// Posts a message of that text's attachments at that time; a taken time moves on by 1 us.
    pub(crate) fn post_at(&mut self, channel: &str, at: Timestamp, mut message: Value) -> Value {
        let messages = &mut self.channel(channel).messages;
        let mut micros = at.micros();
        while messages.contains_key(&micros) {
            micros += 1;
        }
        message["ts"] = json!(MessageTs::from_micros(micros).to_string());
        for only_in_events in ["channel", "channel_type", "event_ts"] {
            message.as_object_mut().unwrap().remove(only_in_events);
        }
        messages.insert(micros, message.clone());
        message["channel"] = json!(channel);
        message
    }

    pub(crate) fn post_incident(&mut self, channel: &str) -> Value {
        let now = self.now();
        self.post_at(channel, now, slack::message(0))
    }

    /// Changes a posted message.
    pub(crate) fn edit(&mut self, message: &Value, attachments: Value) -> Value {
        let now = MessageTs::from_micros(self.now().micros()).to_string();
        let ts: MessageTs = message["ts"].as_str().unwrap().parse().unwrap();
        let channel = message["channel"].as_str().unwrap().to_owned();
        let kept = self.channel(&channel).messages.get_mut(&ts.micros()).unwrap();
        kept["attachments"] = attachments;
        kept["edited"] = json!({"user": BOT_USER, "ts": now});
        kept.clone()
    }

    pub(crate) fn forget_troubles(&mut self) {
        self.troubles.clear();
    }

    /// Replies to a message; history does not show it.
    pub(crate) fn reply(&mut self, message: &Value, mut reply: Value) {
        let ts: MessageTs = message["ts"].as_str().unwrap().parse().unwrap();
        reply["thread_ts"] = message["ts"].clone();
        let channel = self.channel(message["channel"].as_str().unwrap());
        let thread = channel.threads.entry(ts.micros()).or_default();
        thread.push(reply);
        channel.messages.get_mut(&ts.micros()).unwrap()["reply_count"] = json!(thread.len());
    }

    /// One call, as the network would bring it.
    pub(crate) fn call(
        &mut self,
        token: &str,
        method: &str,
        query: &BTreeMap<String, String>,
    ) -> Answer {
        if let Some(wait) = self.over_limit(method) {
            return (429, Some(wait), json!({"ok": false, "error": "ratelimited"}));
        }
        match self.tokens.get(token) {
            None if token.is_empty() => return refused("not_authed"),
            None => return refused("invalid_auth"),
            Some(Some(code)) => return refused(code),
            Some(None) => {}
        }
        let needed: &[&str] = match method {
            "conversations.list" | "conversations.info" => &["channels:read", "groups:read"],
            "conversations.history" => &["channels:history", "groups:history"],
            _ => &[],
        };
        if let Some(missing) = needed.iter().find(|scope| !self.scopes.contains(scope)) {
            let provided = self.scopes.join(",");
            let mut answer = refused("missing_scope");
            answer.2["needed"] = json!(missing);
            answer.2["provided"] = json!(provided);
            return answer;
        }
        if let Some(code) = self.sick_methods.get(method) {
            return refused(code);
        }
        match method {
            "auth.test" => fine(json!({
                "url": "https://example.slack.com/", "team": "Example", "user": "relay",
                "team_id": TEAM, "user_id": BOT_USER, "bot_id": "B0RELAYBOT0",
            })),
            "conversations.list" => self.list(query),
            "conversations.info" => match self.find(query) {
                Some(channel) => fine(json!({"channel": channel.entry()})),
                None => refused("channel_not_found"),
            },
            "conversations.history" => self.history(query),
            _ => refused("unknown_method"),
        }
    }

    /// A private channel that the bot is not in does not exist for it.
    fn find(&self, query: &BTreeMap<String, String>) -> Option<&Channel> {
        let found = self.channels.iter().find(|channel| query.get("channel") == Some(&channel.id));
        found.filter(|channel| channel.member || !channel.private)
    }

    /// The seconds until the method's tier allows a call.
    fn over_limit(&mut self, method: &str) -> Option<u64> {
        let allowance = match method {
            "auth.test" => 100,
            "conversations.list" => 20,
            "conversations.history" if self.limited => 1,
            _ => 50,
        };
        let now = self.clock.now();
        let taken = self.taken.entry(method.to_owned()).or_default();
        while taken.front().is_some_and(|at| *at + Duration::from_secs(60) <= now) {
            taken.pop_front();
        }
        if taken.len() < allowance {
            taken.push_back(now);
            return None;
        }
        let free = *taken.front().unwrap() + Duration::from_secs(60);
        Some(free.since(now).as_secs().max(1))
    }

    /// Filters channels after the page is cut, so a page may be short or empty.
    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        match query.get("team_id").map(String::as_str) {
            None if self.org_wide => return refused("missing_argument"),
            Some(team) if team != TEAM => return refused("team_not_found"),
            Some(_) | None => {}
        }
        let types = query.get("types").map_or("public_channel", String::as_str);
        let limit = query.get("limit").map_or(100, |limit| limit.parse().unwrap());
        let page = self.list_page.min(limit);
        let from: usize = query.get("cursor").map_or(0, |cursor| {
            cursor.trim_start_matches("list").trim_end_matches('=').parse().unwrap()
        });
        let fits = |channel: &&Channel| {
            let kind = if channel.private { "private_channel" } else { "public_channel" };
            types.split(',').any(|known| known == kind)
                && (channel.member || !channel.private)
                && !(channel.archived && query.contains_key("exclude_archived"))
        };
        let cut = self.channels.iter().skip(from).take(page);
        let channels: Vec<Value> = cut.filter(fits).map(Channel::entry).collect();
        let next = from + page;
        let cursor =
            if next < self.channels.len() { format!("list{next}=") } else { String::new() };
        fine(json!({"channels": channels, "response_metadata": {"next_cursor": cursor}}))
    }

    fn sick_page(&self, sick: Sick, cursor: Option<&String>) -> Answer {
        let next = match sick {
            Sick::Error(code) => return refused(code),
            Sick::TwoCursors if cursor.is_some_and(|cursor| cursor == "a=") => "b=".to_owned(),
            Sick::TwoCursors => "a=".to_owned(),
            Sick::EverNewCursors => format!("{}=", self.calls.len()),
        };
        let metadata = json!({"next_cursor": next});
        fine(json!({"messages": [], "has_more": true, "response_metadata": metadata}))
    }

    fn history(&self, query: &BTreeMap<String, String>) -> Answer {
        let Some(channel) = self.find(query) else {
            return refused("channel_not_found");
        };
        if !channel.member {
            return refused("not_in_channel");
        }
        if let Some(sick) = self.sick.get(channel.id.as_str()) {
            return self.sick_page(*sick, query.get("cursor"));
        }
        let micros = |key: &str, default: i64| {
            let given = query.get(key).map(|text| text.parse::<MessageTs>().unwrap().micros());
            given.unwrap_or(default)
        };
        let (mut oldest, mut latest) = (micros("oldest", 0), micros("latest", i64::MAX));
        if query.get("inclusive").map(String::as_str) != Some("true") {
            oldest = oldest.saturating_add(1);
            latest = latest.saturating_sub(1);
        }
        if let Some(cursor) = query.get("cursor") {
            let mut parts = cursor.trim_end_matches('=').split('-');
            if parts.next() != Some(&self.generation.to_string()) {
                return refused("invalid_cursor");
            }
            let at: i64 = parts.next().unwrap().parse().unwrap();
            match self.anchor {
                Anchor::Newest => latest = latest.min(at - 1),
                Anchor::Oldest => oldest = oldest.max(at + 1),
            }
        }
        let limit = query.get("limit").map_or(100, |limit| limit.parse::<usize>().unwrap());
        let limit = limit.min(if self.limited { 15 } else { 999 });
        let inside: Vec<(&i64, &Value)> = if oldest > latest {
            Vec::new()
        } else {
            let range = channel.messages.range(oldest..=latest);
            match self.anchor {
                Anchor::Newest => range.rev().take(limit + 1).collect(),
                Anchor::Oldest => range.take(limit + 1).collect(),
            }
        };
        let has_more = inside.len() > limit;
        let page: Vec<&(&i64, &Value)> = inside.iter().take(limit).collect();
        let mut body = json!({
            "messages": page.iter().map(|(_, message)| message).collect::<Vec<_>>(),
            "has_more": has_more,
        });
        if has_more && !self.without_cursors {
            let cursor = format!("{}-{}=", self.generation, page.last().unwrap().0);
            body["response_metadata"] = json!({"next_cursor": cursor});
        }
        fine(body)
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _peer) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        super::soar::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    drop(body.collect().await);
    let method = head.uri.path().trim_start_matches("/api/").to_owned();
    let url = url::Url::parse(&format!("http://slack{}", head.uri)).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    assert!(!head.uri.to_string().contains(TOKEN), "the token is in the URL");
    let token = head.headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    let token = token.trim_start_matches("Bearer ").to_owned();
    let (trouble, response, gate) = {
        let mut state = state.lock().unwrap();
        let made = state.calls.iter().filter(|call| call.method == method).count();
        let at = state.troubles.iter().position(|(name, nth, _)| *name == method && *nth == made);
        let trouble = at.map(|at| state.troubles.remove(at).2);
        let (status, wait, body) = state.with_trouble(trouble.as_ref(), (&token, &method, &query));
        let response = state.response(status, wait, &body, trouble.as_ref());
        state.calls.push(Call { method, query, status });
        let calls = state.calls.len();
        state.count.send_replace(calls);
        (trouble, response, Arc::clone(&state.gate))
    };
    match trouble {
        Some(Trouble::Hang) => drop(std::future::pending::<Infallible>().await),
        Some(Trouble::Hold) => gate.acquire().await.unwrap().forget(),
        Some(_) | None => {}
    }
    Ok(response)
}

impl State {
    fn with_trouble(
        &mut self,
        trouble: Option<&Trouble>,
        (token, method, query): (&str, &str, &BTreeMap<String, String>),
    ) -> Answer {
        match trouble {
            Some(Trouble::TooMany(wait)) => return (429, *wait, json!({"ok": false})),
            Some(Trouble::Status(status)) => return (*status, None, json!({})),
            Some(Trouble::Error(code)) => return refused(code),
            Some(Trouble::Body(_)) => return fine(json!({})),
            Some(Trouble::Revoke) => {
                self.tokens.insert(token.to_owned(), Some("token_revoked"));
            }
            Some(Trouble::ForgetCursors) => self.generation += 1,
            Some(
                Trouble::NotJson
                | Trouble::Hang
                | Trouble::Hold
                | Trouble::Grow(_)
                | Trouble::Date(_),
            )
            | None => {}
        }
        let answer = self.call(token, method, query);
        if let Some(Trouble::Grow(incidents)) = trouble {
            for _ in 0..*incidents {
                self.post_incident(CHANNEL);
            }
        }
        answer
    }

    fn response(
        &self,
        status: u16,
        wait: Option<u64>,
        body: &Value,
        trouble: Option<&Trouble>,
    ) -> Response<Full<Bytes>> {
        let error = if let Some(Trouble::Date(error)) = trouble { *error } else { 0 };
        let seconds = self.now().seconds() + error;
        let at = UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap());
        let mut response = Response::builder()
            .status(status)
            .header("date", httpdate::fmt_http_date(at))
            .header("x-oauth-scopes", self.scopes.join(","));
        if let Some(wait) = wait {
            response = response.header("retry-after", wait);
        }
        let text = match trouble {
            Some(Trouble::NotJson) => "<html>upstream connect error</html>".to_owned(),
            Some(Trouble::Body(body)) => body.clone(),
            Some(_) | None => body.to_string(),
        };
        response.body(Full::from(text)).unwrap()
    }
}
