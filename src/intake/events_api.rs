//! `POST /slack/events`: the Events API of Slack, from the request's head to the answer.
//!
//! This is the path that must never lose an alert and never waste a microsecond, so it stands on
//! hyper itself. Slack gets 200 only after the commit; when we cannot store, 503, and Slack sends
//! the event again. Whatever is authentic and unwanted is answered 200 and counted: anything but
//! 2xx counts against the app at Slack (<https://docs.slack.dev/apis/events-api>).

mod answer;
mod body;
mod endpoints;
mod keep;
mod limits;
mod refusal;
mod signing;
mod strays;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderMap, HeaderName},
};
use metrics::{Counter, Gauge, Histogram};

use self::{
    answer::{echo, not_allowed, reuse, status},
    endpoints::{Counters, Door, Doors, Endpoint, Owner, SHORT_PATH},
    limits::Limits,
    refusal::refuse,
    strays::Strays,
};
pub use self::{
    body::SignedBody,
    endpoints::{App, MAX_SHORT_PATH_SECRETS, is_short_path_served},
    signing::SigningHealth,
};
use crate::{
    clock::{Seldom, Timestamp},
    code_defender::verdict::{Doubt, Vouched},
    ground::Ground,
    ids::{AppName, ChannelId},
    intake::{
        Admission, Admitted, IncidentMessage, Post,
        fate::Fate,
        notes::{Notes, log_ignored, log_ignored_event},
        notice::Notice,
        trace::{Arrival, RETRY_NUM, RETRY_REASON},
    },
    metrics::Metric,
    slack::{
        self,
        envelope::{self, Callback, Envelope, Event, Teams},
        lifecycle::{self, Change},
        message::Message,
    },
    store::Source,
};

/// The reasons for a retry that Slack documents; any other is counted as `unknown_error`.
const RETRY_REASONS: [&str; 6] = [
    "http_timeout",
    "too_many_redirects",
    "connection_failed",
    "ssl_error",
    "http_error",
    "unknown_error",
];

/// Marks a signed request that an operator's test makes and Slack does not: no push is counted.
pub const TEST_MARK: HeaderName = HeaderName::from_static("x-slack-soar-relay-test");

/// The receiver. Cheap to clone: one clone a connection.
#[derive(Clone, Debug)]
pub struct EventsApi(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of the configuration in use. A request ends with the one that it began with.
    doors: ArcSwap<Doors>,
    ground: Ground,
    /// Counts of what was let through and left out, by bot and reason.
    notes: Arc<Notes>,
    limits: Limits,
    strays: Strays,
    ack_seconds: Histogram,
    event_age: Histogram,
    clock_skew: Gauge,
    retries: Vec<(&'static str, Counter)>,
    said_crowded: Seldom,
    said_busy: Seldom,
}

impl EventsApi {
    /// A receiver for these apps.
    pub fn new(
        apps: Vec<App>,
        admission: &Arc<Admission>,
        notes: Arc<Notes>,
        ground: Ground,
    ) -> Self {
        let metrics = &ground.metrics;
        let doors = ArcSwap::from_pointee(Doors::new(apps, admission, &notes, &ground, None));
        let retries = RETRY_REASONS
            .iter()
            .map(|reason| (*reason, metrics.counter(Metric::SlackRetries, &[reason])))
            .collect();
        Self(Arc::new(Inner {
            doors,
            limits: Limits::new(),
            strays: Strays::new(metrics, &notes),
            ack_seconds: metrics.histogram(Metric::Ack, &[]),
            event_age: metrics.histogram(Metric::EventAge, &[]),
            clock_skew: metrics.gauge(Metric::ClockSkew, &[]),
            retries,
            said_crowded: Seldom::every(Duration::from_secs(60)),
            said_busy: Seldom::every(Duration::from_secs(60)),
            notes,
            ground,
        }))
    }

    /// From now on it receives for these apps. Requests under way end as they began.
    pub fn replace(&self, apps: Vec<App>, admission: &Arc<Admission>) {
        let before = self.0.doors.load_full();
        let doors = Doors::new(apps, admission, &self.0.notes, &self.0.ground, Some(&before));
        self.0.doors.store(Arc::new(doors));
    }

    /// Returns how requests to each app are signed.
    pub fn signing(&self) -> Vec<(AppName, SigningHealth)> {
        self.0.doors.load().signing()
    }

    /// The public listener's whole surface: `/slack/events`, `/healthz`, and nothing else.
    /// Calls `verified` as soon as the request's signature holds.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        verified: impl FnOnce(),
    ) -> Response<Full<Bytes>> {
        self.0.route(request, verified).await
    }
}

/// What is to be done about an authentic body.
enum Next<'d> {
    Answer(Option<Fate>, Response<Full<Bytes>>),
    Store(&'d Arc<Endpoint>, IncidentMessage),
    /// It is to be stored, unless another bot is the one that reports incidents.
    Weigh(&'d Arc<Endpoint>, IncidentMessage, Vouched),
    Keep(&'d Arc<Endpoint>, IncidentMessage, Doubt),
    ChangeId(&'d Arc<Endpoint>, ChannelId, ChannelId),
}

impl Next<'_> {
    fn ignored(fate: Fate) -> Self {
        Self::Answer(Some(fate), status(StatusCode::OK))
    }
}

impl Inner {
    async fn route(
        &self,
        request: Request<Incoming>,
        verified: impl FnOnce(),
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/healthz" {
            return match *request.method() {
                Method::GET | Method::HEAD => status(StatusCode::OK),
                _ => not_allowed("GET, HEAD"),
            };
        }
        let doors = self.doors.load_full();
        let is_post = request.method() == Method::POST;
        let Some(door) = doors.find(path) else {
            let now = self.ground.clock.now();
            if is_post
                && (path.starts_with(SHORT_PATH) || body::may_be_slacks(request.headers(), now))
            {
                self.strays.note_path(path, self.ground.clock.instant());
            }
            return status(StatusCode::NOT_FOUND);
        };
        if !is_post {
            return not_allowed("POST");
        }
        let started = self.ground.clock.instant();
        let (head, mut body) = request.into_parts();
        let (headers, verifier) = (&head.headers, &door.verifier);
        let now = self.ground.clock.now();
        let received = SignedBody::receive(headers, &mut body, verifier, now, &self.limits).await;
        let signed = match received {
            Ok(signed) => signed,
            Err(refusal) => return self.turn_away(&refusal, door, body),
        };
        verified();
        let arrival = Arrival::new(started, headers);
        let mut response = self.receive(door, signed, arrival, headers).await;
        reuse(head.headers, &mut response);
        self.ack_seconds.record(self.since(started));
        response
    }

    async fn receive(
        &self,
        door: &Door,
        body: SignedBody,
        arrival: Arrival,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        let _place = match self.limits.request() {
            Ok(place) => place,
            Err(refusal) => {
                if self.said_busy.is_due(self.ground.clock.instant()) {
                    tracing::warn!(
                        path = door.path(),
                        "as many requests of Slack's are in progress as may be at once: others \
                         are answered 503, and Slack sends them again (said once a minute)"
                    );
                }
                door.count_refused(refusal.fate());
                door.tell_refused();
                return refuse(&refusal, door);
            }
        };
        self.note_timing(headers, &body);
        // The relay's own secret proves nothing about Slack's.
        let is_test = headers.contains_key(&TEST_MARK);
        let (counters, next) = self.judge(door, &body, is_test);
        // Before anything waits: the peer may be gone by the time that it has.
        counters.received(is_test).increment(1);
        // What is stored shares its bytes.
        drop(body);
        let (fate, response) = match next {
            Next::Answer(fate, response) => (fate, response),
            Next::Store(endpoint, incident) => {
                (None, self.store(endpoint, incident, arrival).await)
            }
            Next::Weigh(endpoint, incident, vouched) => {
                (None, self.weigh(endpoint, incident, vouched, arrival).await)
            }
            Next::Keep(endpoint, incident, doubt) => {
                (None, self.keep(endpoint, incident, doubt, arrival).await)
            }
            Next::ChangeId(endpoint, old, new) => {
                (None, self.change_id(endpoint, old, new, arrival).await)
            }
        };
        if let Some(fate) = fate {
            counters.fates.count(fate);
        }
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            door.tell_refused();
        }
        response
    }

    /// Decides about a body, and says who counts it. What it builds is gone before anything waits:
    /// a request that waits is small.
    fn judge<'d>(
        &self,
        door: &'d Door,
        body: &SignedBody,
        is_test: bool,
    ) -> (&'d Counters, Next<'d>) {
        let text = slack::readable(body.bytes());
        let envelope = envelope::parse(&text);
        let teams = envelope.as_ref().ok().and_then(Envelope::teams);
        let endpoint = match door.owner(body.signed(), teams, self.ground.clock.uptime()) {
            Owner::App(endpoint) => endpoint,
            Owner::Nobody => {
                let team = teams.map_or("", Teams::first);
                self.strays.note_team(team, self.ground.clock.instant());
                return (door.counters_without_owner(body.signed()), Next::ignored(Fate::Team));
            }
            Owner::Unsettled => {
                let team = teams.map_or("", Teams::first);
                self.strays.note_unsettled(team, self.ground.clock.instant());
                let answer = status(StatusCode::SERVICE_UNAVAILABLE);
                let next = Next::Answer(Some(Fate::Unsettled), answer);
                return (door.counters_without_owner(body.signed()), next);
            }
        };
        if !is_test {
            self.note_signed(endpoint);
        }
        let next = match envelope {
            Ok(Envelope::UrlVerification { challenge }) => Next::Answer(None, echo(&challenge)),
            Ok(Envelope::Event(callback)) => self.event(endpoint, &callback, body),
            Ok(Envelope::AppRateLimited { minute, .. }) => {
                endpoint.rate_limited.increment(1);
                tracing::warn!(
                    app = %endpoint.app,
                    minute,
                    "Slack withheld events of app {} in one minute: its rate limit",
                    endpoint.app
                );
                let minute = Timestamp::from_seconds(minute);
                endpoint.notices.tell(Notice::RateLimited { minute });
                Next::ignored(Fate::Type)
            }
            Ok(Envelope::Unknown) => {
                log_ignored_event(&endpoint.app, "type");
                Next::ignored(Fate::Type)
            }
            Err(_unparsable) => {
                self.ground.store.quarantine(&endpoint.app, body.bytes());
                let (bytes, now) = (body.bytes().len(), self.ground.clock.instant());
                self.strays.note_unparsable(&endpoint.app, bytes, now);
                Next::ignored(Fate::Unparsable)
            }
        };
        (&endpoint.counters, next)
    }

    fn event<'d>(
        &self,
        endpoint: &'d Arc<Endpoint>,
        callback: &Callback<'_>,
        body: &SignedBody,
    ) -> Next<'d> {
        if callback.event_time > 0 {
            let now = self.ground.clock.now();
            let sent = Timestamp::from_seconds(callback.event_time);
            self.event_age.record(now.since(sent).as_secs_f64());
        }
        match &callback.event {
            Event::Message(message) => match self.admit(endpoint, callback, message, body) {
                Admitted::Incident(incident) => Next::Store(endpoint, incident),
                Admitted::NewLayout(incident, vouched) => Next::Weigh(endpoint, incident, vouched),
                Admitted::NearMiss(incident, doubt) => Next::Keep(endpoint, incident, doubt),
                Admitted::Refused(reason) => {
                    self.notes.refused(&endpoint.app, reason, message, &self.ground.clock);
                    Next::ignored(Fate::Ignored(reason))
                }
                Admitted::Ignored(reason) => {
                    log_ignored(&endpoint.app, reason, message);
                    Next::ignored(Fate::Ignored(reason))
                }
            },
            Event::Lifecycle(kind) => {
                tracing::warn!(app = %endpoint.app, kind = kind.label(), "Slack reports a change");
                let change = lifecycle::change(*kind, callback.raw);
                if let Change::IdChanged { old, new } = &change {
                    return Next::ChangeId(endpoint, ChannelId::new(old), ChannelId::new(new));
                }
                endpoint.notices.tell(Notice::Changed(change));
                Next::ignored(Fate::Lifecycle)
            }
            Event::Other => {
                log_ignored_event(&endpoint.app, "type");
                Next::ignored(Fate::Type)
            }
        }
    }

    fn admit(
        &self,
        endpoint: &Endpoint,
        callback: &Callback<'_>,
        message: &Message<'_>,
        body: &SignedBody,
    ) -> Admitted {
        let post = Post {
            app: &endpoint.app,
            source: Source::Push,
            event_id: &callback.event_id,
            team: &callback.team_id,
            event_time: callback.event_time,
            received_at: self.ground.clock.now(),
        };
        endpoint.admission.admit(message, callback.raw, post, || body.share(callback.raw))
    }

    fn note_timing(&self, headers: &HeaderMap, body: &SignedBody) {
        let skew = self.ground.clock.now().seconds() - body.sent_at().seconds();
        self.clock_skew.set(seconds(skew));
        if headers.contains_key(&RETRY_NUM) {
            let reason = headers.get(&RETRY_REASON).and_then(|value| value.to_str().ok());
            let known = self.retries.iter().find(|(name, _)| Some(*name) == reason);
            if let Some((_, counter)) = known.or_else(|| self.retries.last()) {
                counter.increment(1);
            }
        }
    }

    fn since(&self, started: Instant) -> f64 {
        self.ground.clock.instant().saturating_duration_since(started).as_secs_f64()
    }
}

/// Skew is a handful of seconds, which a float holds exactly.
fn seconds(whole: i64) -> f64 {
    i32::try_from(whole).map_or(f64::MAX, f64::from)
}
