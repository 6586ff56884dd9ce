//! The parts of the running relay, as the ops API controls them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{moment, review, sample};
use crate::{
    alert::mapping::{Origin, alert_of_stored},
    clock::{Clock, Timestamp},
    code_defender::{matcher::Matcher, risk_level::RiskLevel, settings::MatchSettings},
    config::{self, Fingerprint},
    delivery::{
        feed::{Feed, FeedError, NumberedAlert},
        handle::WorkerHandle,
        outcome::describe,
    },
    destination::{DeliveryError, Destination, Receipt},
    ids::{AlertId, AppName, ChannelId, DestinationName, MessageKey, MessageTs, TsKey},
    intake::{
        Admission,
        catch_up::{
            BackfillError, BackfillFailure, BackfillRequest, CatchUpStatus, ChannelStatus,
            HistoryTime, PollerHandle, Purpose, ReadCounts,
        },
        events_api::{EventsApi, SigningHealth},
        notes::Notes,
    },
    logging::chain,
    ops::{
        Backfill, Configuration, Control, Controls, DestinationHealth, FeedItem, FeedKey, FeedWish,
        NoAdoption, NoBackfill, NoItems, NoRouting, NoTest, Routing, Tested,
        view::{BackfillReport, Breaker, CatchUp, Channel, Refused, Signing, Unread},
    },
    secret::Secret,
    store::{AlertView, NearMiss, NewMessage, Posters, Reference, Source, StoreError},
};

/// A destination, and the worker or the feed that serves it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// Digest of the settings that the destination was built from.
    pub(super) fingerprint: Fingerprint,
    pub(super) secrets: Vec<Secret>,
    pub(super) destination: Arc<Destination>,
    pub(super) by: ServedBy,
}

/// The part that serves a destination.
#[derive(Clone, Debug)]
pub(super) enum ServedBy {
    /// A worker that sends to the destination.
    Worker(WorkerHandle),
    /// A feed, and the token of its reader.
    Feed(Arc<Feed>, Secret),
}

impl Served {
    /// Stops the worker or the feed.
    pub(super) fn retire(&self) {
        match &self.by {
            ServedBy::Worker(worker) => worker.retire(),
            ServedBy::Feed(feed, _) => feed.retire(),
        }
    }

    /// Makes the worker, if there is one, send a probe now.
    pub(super) fn probe_now(&self) {
        if let ServedBy::Worker(worker) = &self.by {
            worker.probe_now();
        }
    }

    fn health(&self) -> DestinationHealth {
        let name = self.destination.name().clone();
        let problem = self.destination.problem();
        match &self.by {
            ServedBy::Worker(worker) => DestinationHealth {
                name,
                breaker: worker
                    .open_breaker()
                    .map(|open| Breaker { since: open.since, next_try_at: open.probe_at }),
                quiet_until: worker.quiet_until(),
                is_read: false,
                last_failure: worker.last_failure(),
                last_read: None,
                problem,
            },
            ServedBy::Feed(feed, _) => DestinationHealth {
                name,
                breaker: None,
                quiet_until: None,
                is_read: true,
                last_failure: None,
                last_read: feed.read_at(),
                problem,
            },
        }
    }
}

/// The parts that run with one configuration.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) apps: Vec<config::AppConfig>,
    pub(super) served: Vec<Served>,
    pub(super) matching: MatchSettings,
    pub(super) matcher: Arc<Matcher>,
    pub(super) clock: Clock,
    pub(super) configuration: Arc<ArcSwap<Configuration>>,
    /// Admission, which decides on the destinations of an alert.
    pub(super) admission: Arc<Admission>,
    /// Counts of what was let through and left out, by bot and reason.
    pub(super) notes: Arc<Notes>,
    /// The receiver of pushes.
    pub(super) events_api: EventsApi,
    /// Pollers, one for each app.
    pub(super) catch_up: Vec<PollerHandle>,
}

impl Running {
    fn find(&self, name: &DestinationName) -> Option<&Served> {
        self.served.iter().find(|one| one.destination.name() == name)
    }

    async fn attempt(
        &self,
        destination: &Destination,
        id: &AlertId,
        posted_at: MessageTs,
        severity: RiskLevel,
    ) -> Result<Receipt, DeliveryError> {
        let test =
            sample::TestIncident { app: self.apps.first(), matching: &self.matching, severity };
        let origin = Origin {
            id,
            posted_at,
            source: Source::Push.as_str(),
            event_id: "",
            team: "",
            bot_id: "",
        };
        // Made as a message and derived from it like a stored alert: the test then passes through
        // the configured matching and the mapping too.
        let raw = test.message(posted_at).to_string();
        let alert = alert_of_stored(raw.as_bytes(), 0, &origin, &self.matcher)
            .map_err(|error| DeliveryError::Refused { answer: None, reason: error.to_string() })?;
        destination.deliver(&alert).await
    }
}

#[async_trait]
impl Control for Running {
    fn apps(&self) -> Vec<AppName> {
        self.apps.iter().map(|app| app.name.clone()).collect()
    }

    fn configuration(&self) -> Configuration {
        self.configuration.load().as_ref().clone()
    }

    fn destinations(&self) -> Vec<DestinationHealth> {
        self.served.iter().map(Served::health).collect()
    }

    fn duration(&self, text: &str) -> Option<Duration> {
        config::duration(text)
    }

    fn matcher(&self) -> Arc<Matcher> {
        Arc::clone(&self.matcher)
    }

    fn probe_now(&self, destination: Option<&DestinationName>) {
        let is_selected =
            |one: &&Served| destination.is_none_or(|name| name == one.destination.name());
        self.served.iter().filter(is_selected).for_each(Served::probe_now);
    }

    fn ignored(&self, app: &str) -> BTreeMap<&'static str, u64> {
        self.notes.ignored_of(app)
    }

    fn refused(&self, app: &AppName) -> Vec<Refused> {
        review::refused(&self.notes, app)
    }

    fn adopt(&self, near_miss: &NearMiss) -> Result<NewMessage, NoAdoption> {
        review::adopt(&self.admission, &self.apps(), near_miss)
    }

    async fn write_counts(&self, store: &dyn Posters) -> Result<(), StoreError> {
        self.notes.posters.write(store).await
    }

    fn route(&self, alert: &AlertView) -> Result<Routing, NoRouting> {
        let raw = alert.raw.as_deref().ok_or(NoRouting::Gone)?;
        let wishes = self.admission.route_again(alert, raw).ok_or(NoRouting::Unreadable)?;
        let mut routing = Routing::default();
        for wish in wishes {
            match wish.refused_by {
                None => routing.wanted_by.push(wish.destination),
                Some(key) => routing.refused_by.push((wish.destination, key)),
            }
        }
        Ok(routing)
    }

    fn feeds(&self) -> Vec<FeedKey> {
        let key = |one: &Served| match &one.by {
            ServedBy::Worker(_) => None,
            ServedBy::Feed(_, token) => {
                Some(FeedKey { name: one.destination.name().clone(), token: token.clone() })
            }
        };
        self.served.iter().filter_map(key).collect()
    }

    async fn read(&self, feed: &DestinationName, wish: FeedWish) -> Result<Vec<FeedItem>, NoItems> {
        let Some(ServedBy::Feed(feed, _)) = self.find(feed).map(|one| one.by.clone()) else {
            return Err(NoItems::Gone);
        };
        let items = feed.read(wish.after, wish.limit, wish.wait).await;
        let items = items.map_err(|error| match error {
            FeedError::Beyond(end) => NoItems::Beyond(end),
            FeedError::Store(error) => NoItems::Store(error),
        })?;
        let item = |one: NumberedAlert| FeedItem { seq: one.seq, alert: one.alert };
        Ok(items.into_iter().map(item).collect())
    }

    async fn test(
        &self,
        destination: &DestinationName,
        severity: RiskLevel,
    ) -> Result<Tested, NoTest> {
        let served = self.find(destination).ok_or(NoTest::Unknown)?;
        // Nothing is ever sent to a feed: its reader comes for the alerts.
        if matches!(served.by, ServedBy::Feed(..)) {
            return Err(NoTest::Read);
        }
        let app = self.apps.first().ok_or(NoTest::Unknown)?;
        let started_at = self.clock.now();
        let posted_at = MessageTs::from_micros(started_at.micros());
        let channel = ChannelId::new(sample::channel(Some(app)));
        let message = MessageKey { app: app.name.clone(), channel, ts: TsKey::Ts(posted_at) };
        let alert = AlertId { message, ordinal: 0 };
        // The duration comes from the monotonic clock, since the time of day may be set meanwhile.
        let started = self.clock.instant();
        let result = self.attempt(&served.destination, &alert, posted_at, severity).await;
        let duration = self.clock.instant().saturating_duration_since(started);
        let attempt = describe(&result, started_at, duration);
        let reference = result.as_ref().map_or_else(
            |_failed| Reference::default(),
            |receipt| Reference {
                id: receipt.reference_id.clone(),
                url: receipt.reference_url.clone(),
            },
        );
        Ok(Tested { alert, attempt, delivered: result.is_ok(), reference })
    }

    fn signing(&self) -> Vec<(AppName, Signing)> {
        let signing = |health: SigningHealth| Signing {
            last_verified_at: health.verified_at,
            rejected: health.rejected,
            strangers: health.strangers,
        };
        self.events_api.signing().into_iter().map(|(app, health)| (app, signing(health))).collect()
    }

    fn catch_up(&self) -> Vec<(AppName, CatchUp)> {
        let now = self.clock.now();
        let status = |handle: &PollerHandle| {
            let status = handle.status();
            (status.app.clone(), catch_up_of(status, now))
        };
        self.catch_up.iter().map(status).collect()
    }

    async fn backfill(&self, request: &Backfill) -> Result<BackfillReport, NoBackfill> {
        let history = history(request).map_err(NoBackfill::Invalid)?;
        let is_selected = |handle: &&PollerHandle| {
            request.app.as_deref().is_none_or(|name| name == handle.app().as_str())
        };
        let (mut sum, mut is_read) = (ReadCounts::default(), false);
        let (mut failures, mut unlisted) = (Vec::new(), Vec::new());
        for handle in self.catch_up.iter().filter(is_selected) {
            let app = handle.app();
            match handle.backfill(history.clone()).await {
                Ok(read) => {
                    is_read |= read.channels > 0;
                    sum.add(read.counts);
                    failures.extend(read.failures.iter().map(|one| unread(app, one)));
                }
                Err(error @ BackfillError::Reversed) => {
                    return Err(NoBackfill::Invalid(error.to_string()));
                }
                // Another app may have this channel, or have channels at all.
                Err(BackfillError::UnknownChannel(_) | BackfillError::Nowhere) => {}
                Err(error) => {
                    let list = match error {
                        BackfillError::Unlisted(_) => &mut unlisted,
                        BackfillError::UnknownChannel(_)
                        | BackfillError::Silent(_)
                        | BackfillError::Endless(_)
                        | BackfillError::Reversed
                        | BackfillError::Nowhere
                        | BackfillError::Stopped
                        | BackfillError::Read(_) => &mut failures,
                    };
                    list.push(unread(app, &BackfillFailure { channel: None, error }));
                }
            }
        }
        // A requested channel that was read was found without these lists.
        if !is_read || request.channel.is_none() {
            failures.append(&mut unlisted);
        }
        if is_read {
            let ReadCounts { found, new, known, marked } = sum;
            return Ok(BackfillReport { found, new, known, marked, failures });
        }
        if !failures.is_empty() {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            return Err(NoBackfill::Failed(all.join("; ")));
        }
        let text =
            "no app with a `bot_token` reads such a channel; GET /api/v1/status lists all channels";
        Err(NoBackfill::Nothing(text.to_owned()))
    }
}

fn unread(app: &AppName, one: &BackfillFailure) -> Unread {
    let channel = one.channel.as_ref().map(ToString::to_string).unwrap_or_default();
    Unread { app: app.to_string(), channel, problem: chain(&one.error) }
}

/// Parses a request for history. Returns the problem of a request that is not valid.
fn history(request: &Backfill) -> Result<BackfillRequest, String> {
    let named = |key: &str, problem: String| format!("{key}: {problem}");
    let since = request.since.as_deref().map(moment::since).transpose();
    let until = request.until.as_deref().map(moment::until).transpose();
    let since = since.map_err(|problem| named("since", problem))?;
    let until = until.map_err(|problem| named("until", problem))?;
    let (since, purpose) = match (since, until, request.mark_known) {
        (_, None, true) => {
            return Err(
                "until: is required with `mark_known`, so that newer incidents are delivered"
                    .into(),
            );
        }
        (None, _, false) => return Err("since: is required, such as 24h".into()),
        (since, Some(_), true) => {
            let beginning = HistoryTime::At(MessageTs::from_micros(0));
            (since.unwrap_or(beginning), Purpose::MarkKnown)
        }
        (Some(since), _, false) => (since, Purpose::Deliver),
    };
    Ok(BackfillRequest { since, until, channel: request.channel.clone(), purpose })
}

fn catch_up_of(status: CatchUpStatus, now: Timestamp) -> CatchUp {
    let channel = |one: ChannelStatus| Channel {
        missed_pushes_in_a_day: one.withheld_in_a_day(now),
        id: one.id.to_string(),
        name: one.name,
        committed: one.committed.map(|ts| Timestamp::from_micros(ts.micros())),
        last_success_at: one.last_success,
        lag_seconds: one.last_success.map(|at| now.since(at).as_secs()),
        problem: one.problem,
        archived: one.is_archived,
        missed_pushes: one.missed,
    };
    CatchUp {
        problem: status.problem,
        unresolved: status.unresolved,
        channels: status.channels.into_iter().map(channel).collect(),
    }
}

/// The parts that run with the configuration in use.
#[derive(Debug)]
pub(super) struct Current(pub(super) ArcSwap<Running>);

impl Current {
    /// Returns the controls through which the API reaches the parts in use.
    pub(super) fn controls(self: &Arc<Self>) -> Controls {
        let this = Arc::clone(self);
        Controls::new(move || this.0.load_full())
    }
}
