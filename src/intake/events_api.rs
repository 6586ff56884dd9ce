//! `POST /slack/events`: Slack's Events API, from the request's head to the answer.
//!
//! Slack is answered 200 only after the commit. When an alert cannot be stored the answer is 503,
//! and Slack sends the event again. Authentic events that are not wanted are answered 200 and
//! counted: anything but 2xx counts against the app at Slack
//! (<https://docs.slack.dev/apis/events-api>).

mod body;
mod commit;
mod endpoints;
mod headers;
mod ingress;
mod limits;
mod refusal;
mod signing;
mod warnings;

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{FromRef, Request, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics::{Counter, Gauge, Histogram};

use self::{
    body::SignedBody,
    commit::{Committer, Work},
    endpoints::{Counters, Endpoint, Endpoints, Owner, ReceivingApp, SHORT_PATH},
    ingress::Ingress,
    limits::Limits,
    warnings::Warnings,
};
pub use self::{
    endpoints::{AppSettings, MAX_SHORT_PATH_SECRETS, is_short_path_served},
    headers::TEST_MARK,
    signing::SigningHealth,
};
use crate::{
    clock::Timestamp,
    ground::Ground,
    ids::{AppName, ChannelId},
    intake::{
        Admission, Admitted, Post,
        fate::Fate,
        notes::{Notes, log_ignored, log_ignored_event},
        notice::Notice,
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

/// Reasons for a retry that Slack documents. Any other is counted as `unknown_error`.
const RETRY_REASONS: [&str; 6] = [
    "http_timeout",
    "too_many_redirects",
    "connection_failed",
    "ssl_error",
    "http_error",
    "unknown_error",
];

/// The receiver of the Events API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventsApi(Arc<Receiver>);

#[derive(Debug)]
struct Receiver {
    ingress: Arc<Ingress>,
    committer: Committer,
    ack_seconds: Histogram,
    event_age: Histogram,
    clock_skew: Gauge,
    retries: Vec<(&'static str, Counter)>,
}

impl EventsApi {
    /// Creates a receiver for these apps. Accepted and ignored messages are counted in `notes`.
    pub fn new(
        apps: Vec<AppSettings>,
        admission: &Arc<Admission>,
        notes: Arc<Notes>,
        ground: Ground,
    ) -> Self {
        let endpoints = Endpoints::new(apps, admission, &notes, &ground, None);
        let metrics = &ground.metrics;
        let retries = RETRY_REASONS
            .iter()
            .map(|reason| (*reason, metrics.counter(Metric::SlackRetries, &[reason])))
            .collect();
        Self(Arc::new(Receiver {
            ingress: Arc::new(Ingress {
                endpoints: ArcSwap::from_pointee(endpoints),
                limits: Limits::new(),
                warnings: Warnings::new(),
                ground: ground.clone(),
            }),
            ack_seconds: metrics.histogram(Metric::Ack, &[]),
            event_age: metrics.histogram(Metric::EventAge, &[]),
            clock_skew: metrics.gauge(Metric::ClockSkew, &[]),
            retries,
            committer: Committer { ground, notes },
        }))
    }

    /// Replaces the apps. Requests in progress end with the apps they began with.
    pub fn replace(&self, apps: Vec<AppSettings>, admission: &Arc<Admission>) {
        let Receiver { ingress, committer: Committer { ground, notes }, .. } = &*self.0;
        let before = ingress.endpoints.load_full();
        let endpoints = Endpoints::new(apps, admission, notes, ground, Some(&before));
        ingress.endpoints.store(Arc::new(endpoints));
    }

    /// Returns the signing health of each app.
    pub fn signing(&self) -> Vec<(AppName, SigningHealth)> {
        self.0.ingress.endpoints.load().signing()
    }

    /// Returns the public listener's whole surface: `/slack/events`, `/healthz`, and nothing else.
    pub fn router(&self) -> Router {
        // Endpoints change with the configuration, so the app in the path is looked up by
        // `SignedBody`.
        let endpoint = || post(receive).fallback(other_method);
        Router::new()
            .route("/healthz", get(async || {}))
            .route(SHORT_PATH, endpoint())
            .route(&format!("{SHORT_PATH}/{{app}}"), endpoint())
            .fallback(unknown_path)
            .with_state(self.clone())
    }
}

impl FromRef<EventsApi> for Arc<Ingress> {
    fn from_ref(api: &EventsApi) -> Self {
        Self::clone(&api.0.ingress)
    }
}

async fn receive(State(api): State<EventsApi>, body: SignedBody) -> Response {
    let started = body.arrival().started;
    let response = api.0.answer(body).await;
    api.0.ack_seconds.record(api.0.since(started));
    response
}

/// Answers a request with another method than POST.
async fn other_method(State(ingress): State<Arc<Ingress>>, uri: Uri) -> StatusCode {
    if ingress.endpoint(uri.path()).is_some() {
        StatusCode::METHOD_NOT_ALLOWED
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn unknown_path(State(ingress): State<Arc<Ingress>>, request: Request) -> Response {
    let (head, _body) = request.into_parts();
    ingress.reject_unknown(&head).into_response()
}

/// Work that an authentic body asks for.
enum Action<'e> {
    /// Prove that the URL is ours.
    Echo(String),
    /// Count the event; nothing is stored.
    Count(Fate),
    Commit(&'e Arc<ReceivingApp>, Box<Work>),
}

impl Receiver {
    async fn answer(&self, body: SignedBody) -> Response {
        let endpoint = Arc::clone(body.endpoint());
        let Some(_permit) = self.ingress.limits.request_permit() else {
            self.ingress.warnings.overload(endpoint.path(), self.committer.ground.clock.instant());
            endpoint.count_refused(Fate::Overload);
            endpoint.notify_refused();
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        self.note_timing(&body);
        let (counters, action) = self.judge(&endpoint, &body);
        // Counted before anything waits: the peer may go away meanwhile.
        counters.received(body.is_test()).increment(1);
        // The body is dropped here, since what is stored shares its bytes.
        let arrival = body.into_arrival();
        let fate = match action {
            // docs.slack.dev/reference/events/url_verification
            Action::Echo(challenge) => {
                return Json(serde_json::json!({ "challenge": challenge })).into_response();
            }
            Action::Count(fate) => {
                counters.fates.count(fate);
                fate
            }
            Action::Commit(app, work) => self.committer.commit(app, *work, arrival).await,
        };
        if matches!(fate, Fate::Store | Fate::Unsettled) {
            endpoint.notify_refused();
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        StatusCode::OK.into_response()
    }

    /// Decides what to do about a body, and which counters it belongs to. What is parsed here is
    /// dropped before anything waits, so a request that waits is small.
    fn judge<'e>(&self, endpoint: &'e Endpoint, body: &SignedBody) -> (&'e Counters, Action<'e>) {
        let text = slack::readable(body.bytes());
        let envelope = envelope::parse(&text);
        let teams = envelope.as_ref().ok().and_then(Envelope::teams);
        let clock = &self.committer.ground.clock;
        let warnings = &self.ingress.warnings;
        let app = match endpoint.owner(body.signed(), teams, clock.uptime()) {
            Owner::App(app) => app,
            Owner::Nobody => {
                warnings.foreign_team(teams.map_or("", Teams::first), clock.instant());
                let counters = endpoint.counters_without_owner(body.signed());
                return (counters, Action::Count(Fate::Team));
            }
            Owner::Unsettled => {
                warnings.unsettled(teams.map_or("", Teams::first), clock.instant());
                let counters = endpoint.counters_without_owner(body.signed());
                return (counters, Action::Count(Fate::Unsettled));
            }
        };
        // A test is signed with the relay's own secret, which proves nothing about Slack's.
        if !body.is_test() {
            self.ingress.note_signed(app);
        }
        let action = match envelope {
            Ok(Envelope::UrlVerification { challenge }) => Action::Echo(challenge.into_owned()),
            Ok(Envelope::Event(callback)) => self.event(app, &callback, body),
            Ok(Envelope::AppRateLimited { minute, .. }) => {
                app.rate_limited.increment(1);
                tracing::warn!(
                    app = %app.name,
                    minute,
                    "Slack withheld events of app {} in one minute: its rate limit",
                    app.name
                );
                let minute = Timestamp::from_seconds(minute);
                app.notices.tell(Notice::RateLimited { minute });
                Action::Count(Fate::Type)
            }
            Ok(Envelope::Unknown) => {
                log_ignored_event(&app.name, "type");
                Action::Count(Fate::Type)
            }
            Err(_unparsable) => {
                self.committer.ground.store.quarantine(&app.name, body.bytes());
                warnings.unparsable(&app.name, body.bytes().len(), clock.instant());
                Action::Count(Fate::Unparsable)
            }
        };
        (&app.counters, action)
    }

    fn event<'e>(
        &self,
        app: &'e Arc<ReceivingApp>,
        callback: &Callback<'_>,
        body: &SignedBody,
    ) -> Action<'e> {
        let clock = &self.committer.ground.clock;
        if callback.event_time > 0 {
            let sent = Timestamp::from_seconds(callback.event_time);
            self.event_age.record(clock.now().since(sent).as_secs_f64());
        }
        match &callback.event {
            Event::Message(message) => match self.admit(app, callback, message, body) {
                Admitted::Incident(incident) => {
                    Action::Commit(app, Box::new(Work::Store(incident)))
                }
                Admitted::NewLayout(incident, vouched) => {
                    Action::Commit(app, Box::new(Work::Weigh(incident, vouched)))
                }
                Admitted::NearMiss(incident, doubt) => {
                    Action::Commit(app, Box::new(Work::Keep(incident, doubt)))
                }
                Admitted::Refused(reason) => {
                    self.committer.notes.refused(&app.name, reason, message, clock);
                    Action::Count(Fate::Ignored(reason))
                }
                Admitted::Ignored(reason) => {
                    log_ignored(&app.name, reason, message);
                    Action::Count(Fate::Ignored(reason))
                }
            },
            Event::Lifecycle(kind) => {
                tracing::warn!(app = %app.name, kind = kind.label(), "Slack reports a change");
                let change = lifecycle::change(*kind, callback.raw);
                // A new id is stored before Slack is answered: after a 200 this event does not come
                // again.
                if let Change::IdChanged { old, new } = &change {
                    let (old, new) = (ChannelId::new(old), ChannelId::new(new));
                    return Action::Commit(app, Box::new(Work::ChangeId { old, new }));
                }
                app.notices.tell(Notice::Changed(change));
                Action::Count(Fate::Lifecycle)
            }
            Event::Other => {
                log_ignored_event(&app.name, "type");
                Action::Count(Fate::Type)
            }
        }
    }

    fn admit(
        &self,
        app: &ReceivingApp,
        callback: &Callback<'_>,
        message: &Message<'_>,
        body: &SignedBody,
    ) -> Admitted {
        let post = Post {
            app: &app.name,
            source: Source::Push,
            event_id: &callback.event_id,
            team: &callback.team_id,
            event_time: callback.event_time,
            received_at: self.committer.ground.clock.now(),
        };
        app.admission.admit(message, callback.raw, post, || body.share(callback.raw))
    }

    fn note_timing(&self, body: &SignedBody) {
        let skew = self.committer.ground.clock.now().seconds() - body.signed().sent_at.seconds();
        self.clock_skew.set(seconds(skew));
        if let Some(reason) = body.arrival().retry_reason() {
            let known = self.retries.iter().find(|(name, _)| *name == reason);
            if let Some((_, counter)) = known.or_else(|| self.retries.last()) {
                counter.increment(1);
            }
        }
    }

    fn since(&self, started: Instant) -> f64 {
        self.committer.ground.clock.instant().saturating_duration_since(started).as_secs_f64()
    }
}

/// Converts seconds of skew to a float, which holds them exactly: skew is a handful.
fn seconds(whole: i64) -> f64 {
    i32::try_from(whole).map_or(f64::MAX, f64::from)
}
