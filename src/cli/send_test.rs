//! `send-test`: sends an unmistakable test incident through the running relay, like a real one.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::json;

use super::{
    ops_client::{OpsClient, Refused, Target, reachable},
    options::{BadConfiguration, Common},
    output::{say, say_json},
    sample::TestIncident,
    serve,
    terminal::{Colour, Screen, harmless, spinner},
};
use crate::{
    clock::{Clock, rough},
    code_defender::{
        matcher::{Matcher, Watch},
        risk_level::RiskLevel,
        verdict::Verdict,
    },
    config::{AppConfig, Config},
    http_client,
    ids::{AlertId, MessageTs},
    intake::events_api::TEST_MARK,
    ops::view::{Delivery, Detail, TestReport},
    slack::{message, signature},
};

/// Interval at which the alert's state is requested.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for the relay's answer. Slack itself waits for 3 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Send a test incident.
#[derive(Args, Debug)]
pub struct SendTest {
    /// Severity of the incident: Informative, Low, Medium, High or Critical.
    #[arg(long, default_value = "High", value_parser = severity)]
    severity: RiskLevel,
    /// Send only to this destination, without signature, store and routing.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Slack app whose secret signs the request [default: the first app whose secret can be read].
    #[arg(long, value_name = "NAME", conflicts_with = "destination")]
    app: Option<String>,
    /// URL to post to, for example that of a proxy in front of the relay [default: `listen` of the
    /// configuration].
    #[arg(long, value_name = "URL", conflicts_with = "destination")]
    url: Option<String>,
    /// Seconds to wait for the delivery.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, conflicts_with = "destination")]
    wait: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn severity(word: &str) -> Result<RiskLevel, String> {
    RiskLevel::parse(word)
        .ok_or_else(|| "use Informative, Low, Medium, High or Critical".to_owned())
}

impl SendTest {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let runtime = serve::runtime()?;
        if let Some(name) = &self.destination {
            let client = self.target.client(common)?;
            return runtime.block_on(to_one(&client, name, self.severity, self.json));
        }
        let salvaged = common.salvage();
        let client = self.target.client_by(common, &salvaged)?;
        if self.url.is_none() && !salvaged.has_read("/server/listen") {
            let error = common.unusable(&salvaged, "/server/listen");
            return Err(error.context("without --url, `listen` of the configuration is needed"));
        }
        runtime.block_on(self.through_the_front_door(&salvaged.config, &client))
    }

    async fn through_the_front_door(
        &self,
        config: &Config,
        client: &OpsClient,
    ) -> anyhow::Result<ExitCode> {
        let app = self.app(config)?;
        let clock = Clock::system();
        let ts = MessageTs::from_micros(clock.now().micros());
        let test =
            TestIncident { app: Some(app), matching: &config.matching, severity: self.severity };
        // Before anything is posted: a test that the configuration does not recognise would be
        // answered 200 and ignored.
        let id = alert_id(&test, app, config, ts)?;
        self.post(config, app, &test.event(ts).to_string()).await?;
        if !self.json {
            say(&format!("Accepted: alert {id} is on disk."));
        }
        let waiting = spinner("waiting for the destinations");
        let deadline = clock.now() + Duration::from_secs(self.wait);
        let alert = loop {
            let alert = found(client.get::<Detail>(&["alerts", &id], &[]).await)?;
            let is_open =
                alert.as_ref().is_none_or(|alert| alert.row.deliveries.iter().any(is_open));
            if !is_open || clock.now() >= deadline {
                break alert;
            }
            clock.sleep(POLL_INTERVAL).await;
        };
        waiting.finish_and_clear();
        let alert = alert.with_context(|| {
            format!("the relay does not have alert {id}: is --server the relay that was posted to?")
        })?;
        self.report(&id, &alert, &feeds(config))
    }

    fn app<'c>(&self, config: &'c Config) -> anyhow::Result<&'c AppConfig> {
        let can_sign = |app: &&AppConfig| !app.signing_secrets.is_empty();
        let Some(name) = &self.app else {
            let message = "the test must be signed, and the signing secret of no app can be read";
            let first = config.apps.iter().find(can_sign);
            return first.ok_or_else(|| BadConfiguration(message.to_owned()).into());
        };
        let named = config.apps.iter().find(|app| name == app.name.as_str());
        let named = named.ok_or_else(|| BadConfiguration(format!("no app is named `{name}`")))?;
        let message = || format!("the signing secret of the app `{name}` cannot be read");
        Some(named).filter(can_sign).ok_or_else(|| BadConfiguration(message()).into())
    }

    /// Signs and posts the event like Slack.
    async fn post(&self, config: &Config, app: &AppConfig, body: &str) -> anyhow::Result<()> {
        // With several apps the path names one: the short path tries the secrets of all apps, and
        // is not served if there are too many.
        let path = match config.apps.len() {
            1 => "/slack/events".to_owned(),
            _ => format!("/slack/events/{}", app.name),
        };
        let url = match &self.url {
            Some(url) => url.clone(),
            None => format!("http://{}{path}", reachable(config.server.listen, "listen", "--url")?),
        };
        let secret = app.signing_secrets.first().context("the app has no signing secret")?;
        let now = Clock::system().now();
        let client = http_client::build(&http_client::Settings::default())?;
        let answer = client
            .post(&url)
            .timeout(ANSWER_TIMEOUT)
            .header("x-slack-request-timestamp", now.seconds())
            .header("x-slack-signature", signature::sign(secret, now, body.as_bytes()))
            .header("content-type", "application/json")
            .header(TEST_MARK, "1")
            .body(body.to_owned())
            .send()
            .await
            .map_err(|error| {
                let why = if error.is_connect() { "connection refused" } else { "no answer" };
                anyhow!("the test cannot be posted to {url}: {why}")
            })?;
        let hint = match answer.status().as_u16() {
            200 => return Ok(()),
            401 => "; the relay uses another signing secret, or its clock is wrong",
            404 => "; this is not the address of a relay for Slack",
            503 => "; the relay cannot store now, see its log for the reason",
            _ => "",
        };
        bail!("{url} answered {}{hint}", answer.status())
    }

    fn report(&self, id: &str, alert: &Detail, feeds: &[&str]) -> anyhow::Result<ExitCode> {
        let deliveries = &alert.row.deliveries;
        let is_delivered = |one: &Delivery| one.state == "delivered";
        let delivered = !deliveries.is_empty() && deliveries.iter().all(is_delivered);
        if self.json {
            let result = json!({"id": id, "delivered": delivered, "deliveries": deliveries});
            say_json(&result)?;
            return Ok(code(delivered));
        }
        for delivery in deliveries {
            let is_read = feeds.contains(&delivery.destination.as_str());
            say(&if is_read && is_open(delivery) {
                unread(delivery)
            } else {
                line(delivery, alert)
            });
        }
        if deliveries.is_empty() {
            say("Unrouted: no destination accepts the alert; see `when` in the configuration.");
        } else if deliveries.iter().any(is_open) {
            say(&format!(
                "Not delivered after {} s; the relay goes on trying, see: alerts show {id}",
                self.wait
            ));
        }
        Ok(code(delivered))
    }
}

/// Sends a test directly to one destination, without storing it, and reports the result.
pub(super) async fn to_one(
    client: &OpsClient,
    name: &str,
    severity: RiskLevel,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let query = [("severity", severity.as_str().to_owned())];
    let report: TestReport = client.post(&["destinations", name, "test"], &query).await?;
    if json {
        say_json(&report)?;
    } else {
        let screen = Screen::new();
        let attempt = &report.attempt;
        let status = attempt.status.map(|status| format!(", status {status}"));
        say(&format!(
            "{name}: {}{} in {} ms",
            screen.paint(Colour::of(&attempt.class), &attempt.class),
            status.unwrap_or_default(),
            attempt.duration_ms
        ));
        for line in [&attempt.excerpt, &report.reference.id, &report.reference.url] {
            if !line.is_empty() {
                say(&format!("  {}", harmless(line)));
            }
        }
    }
    Ok(code(report.delivered))
}

/// Returns the id that the relay will give to the alert.
///
/// # Errors
/// The configured matching does not recognise the test as an incident.
fn alert_id(
    test: &TestIncident<'_>,
    app: &AppConfig,
    config: &Config,
    ts: MessageTs,
) -> anyhow::Result<String> {
    let raw = test.message(ts).to_string();
    let parsed = message::parse(&raw)?;
    let watch = Watch { channels: app.channels.clone(), bots: app.bots.clone() };
    match Matcher::new(config.matching.clone()).judge(&parsed, &raw, &watch) {
        Verdict::Incidents(_) => {
            Ok(AlertId { message: parsed.key(&app.name, raw.as_bytes()), ordinal: 0 }.to_string())
        }
        Verdict::NewLayout(..) | Verdict::NearMiss(..) => bail!(
            "the configuration does not recognise the test as an incident: add a title that is \
             not a regular expression to `match.titles`"
        ),
        Verdict::Refused(reason) | Verdict::Ignored(reason) => bail!(
            "the configuration does not recognise the test as an incident (`{}`): add a title \
             that is not a regular expression to `match.titles`",
            reason.label()
        ),
    }
}

/// Returns the alert; `None` if the relay does not have it yet.
fn found(answer: anyhow::Result<Detail>) -> anyhow::Result<Option<Detail>> {
    match answer {
        Ok(alert) => Ok(Some(alert)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == 404 => Ok(None),
            Some(_) | None => Err(error),
        },
    }
}

fn is_open(delivery: &Delivery) -> bool {
    ["pending", "leased"].contains(&delivery.state.as_str())
}

/// Returns the names of the feeds.
fn feeds(config: &Config) -> Vec<&str> {
    let read = config.destinations.iter().filter(|one| one.http.feed_token().is_some());
    read.map(|one| one.http.name.as_str()).collect()
}

fn unread(delivery: &Delivery) -> String {
    let state = Screen::new().paint(Colour::of(&delivery.state), &delivery.state);
    format!(
        "{}: {state}; delivered when a reader of this feed has confirmed the alert",
        delivery.destination
    )
}

fn line(delivery: &Delivery, alert: &Detail) -> String {
    let state = Screen::new().paint(Colour::of(&delivery.state), &delivery.state);
    let mut line = vec![format!("{}: {state}", delivery.destination)];
    if let Some(at) = delivery.finished_at {
        line.push(format!(" in {} ms", at.since(alert.row.received_at).as_millis()));
    }
    let last = delivery.attempts.as_ref().and_then(|attempts| attempts.last());
    if let Some(last) = last.filter(|_| delivery.state != "delivered") {
        let status = last.status.map(|status| format!(" {status}")).unwrap_or_default();
        let (count, excerpt) = (delivery.attempt_count, harmless(&last.excerpt));
        line.push(format!("; attempts: {count}, the last: {}{status} {excerpt}", last.class));
    }
    if let Some(due_at) = delivery.due_at {
        let wait = rough(due_at.since(Clock::system().now()));
        line.push(format!(" (next attempt in {wait})"));
    }
    line.concat()
}

fn code(delivered: bool) -> ExitCode {
    if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
