//! `explain`: tells what the relay would do with a message, and why.

use std::{
    fs,
    io::{Read, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{
    ops_client::{OpsClient, Target},
    options::{BadConfiguration, Common},
    output::{say, say_json},
    serve,
    terminal::harmless,
};
use crate::{
    alert::{
        Alert,
        mapping::{Origin, alert_of_stored},
    },
    code_defender::{
        matcher::{Matcher, Watch},
        verdict::{FoundIncident, Verdict, Vouched},
    },
    config::{AppConfig, Config},
    ids::{AlertId, ChannelId},
    intake::notes,
    ops::view::{NearMissDetail, Quarantined},
    slack::{
        self,
        envelope::{self, Envelope},
        message,
    },
};

/// Explain whether a message would become an alert, and where it would be sent.
#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "Exit status: 0 if the message would become an alert that is sent somewhere, 1 if \
                  not, 2 if the command line or the configuration is invalid."
)]
pub struct Explain {
    /// File with a message or an event in the form that Slack sends; `-`: standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    message: Option<PathBuf>,
    /// Id of a near miss of the running relay, from `alerts list --near-misses`.
    #[arg(long, value_name = "ID", group = "what")]
    near_miss: Option<String>,
    /// Number of a body that the running relay could not parse, from `alerts list --quarantine`.
    #[arg(long, value_name = "ID", group = "what")]
    quarantine: Option<String>,
    /// App that received the message [default: the app in the id, otherwise the first app].
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Explanation of what would happen to a message.
#[derive(Debug, Serialize)]
struct MessageExplanation {
    /// `alert`, `near_miss` or `ignored`.
    outcome: &'static str,
    /// The reason, as in metrics; empty for an alert.
    reason: &'static str,
    explanation: String,
    attachments: Vec<AttachmentExplanation>,
    alerts: Vec<AlertExplanation>,
}

#[derive(Debug, Serialize)]
struct AttachmentExplanation {
    /// Index of the attachment in the message, from 0.
    attachment: u32,
    title: String,
    is_incident: bool,
    explanation: &'static str,
}

#[derive(Debug, Serialize)]
struct AlertExplanation {
    alert: Alert,
    destinations: Vec<DestinationExplanation>,
}

#[derive(Debug, Serialize)]
struct DestinationExplanation {
    name: String,
    takes: bool,
    /// Key of `when` that the alert does not meet, or null.
    refused_by: Option<&'static str>,
}

impl Explain {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let config = common.salvage().config;
        let body = self.body(common)?;
        let app = self.app(&config)?;
        let explanation = explain(&config, app, &body)?;
        if self.json {
            say_json(&explanation)?;
        } else {
            print(&explanation);
        }
        let mut destinations = explanation.alerts.iter().flat_map(|one| &one.destinations);
        let is_delivered = explanation.outcome == "alert" && destinations.any(|one| one.takes);
        Ok(if is_delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn body(&self, common: &Common) -> anyhow::Result<Vec<u8>> {
        match (&self.message, &self.near_miss, &self.quarantine) {
            (Some(path), _, _) => read(path),
            (None, Some(id), _) => {
                let client = self.target.client(common)?;
                serve::runtime()?.block_on(near_miss(&client, id))
            }
            (None, None, Some(id)) => {
                let client = self.target.client(common)?;
                serve::runtime()?.block_on(quarantined(&client, id))
            }
            (None, None, None) => bail!("give --message, --near-miss or --quarantine"),
        }
    }

    fn app<'c>(&self, config: &'c Config) -> anyhow::Result<&'c AppConfig> {
        let of_id = self.near_miss.as_deref().and_then(|id| id.split(':').next());
        let wanted = self.app.as_deref().or(of_id);
        let found = match wanted {
            Some(name) => config.apps.iter().find(|app| app.name.as_str() == name),
            None => config.apps.first(),
        };
        let missing =
            || BadConfiguration(format!("app `{}` is not configured", wanted.unwrap_or("")));
        Ok(found.ok_or_else(missing)?)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path).with_context(|| path.display().to_string());
    }
    let mut body = Vec::new();
    stdin().read_to_end(&mut body).context("standard input")?;
    Ok(body)
}

async fn near_miss(client: &OpsClient, id: &str) -> anyhow::Result<Vec<u8>> {
    let detail: NearMissDetail = client.get(&["near-misses", id], &[]).await?;
    Ok(detail.raw.get().as_bytes().to_vec())
}

async fn quarantined(client: &OpsClient, id: &str) -> anyhow::Result<Vec<u8>> {
    let body: Quarantined = client.get(&["quarantine", id], &[]).await?;
    Ok(body.body.into_bytes())
}

/// Judges a message like the app's admission. Conditions that depend on the store of a running
/// relay are described in words.
fn explain(config: &Config, app: &AppConfig, body: &[u8]) -> anyhow::Result<MessageExplanation> {
    let text = slack::readable(body);
    let raw = envelope::inner_event(&text).unwrap_or(&text);
    let Ok(posted) = message::parse(raw) else {
        return Ok(MessageExplanation {
            outcome: "ignored",
            reason: "unparsable",
            explanation: "the message is not a JSON object".to_owned(),
            attachments: Vec::new(),
            alerts: Vec::new(),
        });
    };
    let matcher = Matcher::new(config.matching.clone());
    // While a name is unresolved, incidents of every channel are accepted.
    let is_unresolved = !app.channel_names.is_empty();
    let channels = if is_unresolved { Vec::new() } else { app.channels.clone() };
    let watch = Watch { channels, bots: app.bots.clone() };
    let (outcome, reason, explanation, found) = match matcher.judge(&posted, raw, &watch) {
        Verdict::Incidents(found) => {
            ("alert", "", "the message has the known layout".to_owned(), found)
        }
        Verdict::NewLayout(found, Vouched::ByList) => {
            let why = "title and evidence are in a new layout, and the bot is listed in `bots`";
            ("alert", "", why.to_owned(), found)
        }
        Verdict::NewLayout(found, Vouched::ByNobody) => {
            let why = "title and evidence are in a new layout; the message is a near miss instead \
                       if another bot has posted incidents in the channel within 90 days";
            ("alert", "", why.to_owned(), found)
        }
        Verdict::NearMiss(found, doubt) => {
            ("near_miss", doubt.label(), doubt.explain().to_owned(), found)
        }
        Verdict::Refused(reason) | Verdict::Ignored(reason) => {
            ("ignored", reason.label(), notes::explain(reason).to_owned(), Vec::new())
        }
    };
    let attachments = posted.attachments.iter().map(|(attachment, it)| {
        let (is_incident, explanation) = matcher.explain(&it);
        AttachmentExplanation {
            attachment,
            title: it.title.to_string(),
            is_incident: is_incident && outcome == "alert",
            explanation,
        }
    });
    let attachments = attachments.collect();
    let context = AlertContext { config, app, matcher: &matcher, text: &text, raw };
    let alerts = found.iter().map(|found| context.alert(&posted, found));
    let alerts = alerts.collect::<anyhow::Result<Vec<_>>>()?;
    Ok(MessageExplanation { outcome, reason, explanation, attachments, alerts })
}

/// A message with everything that is needed to derive an alert.
#[derive(Clone, Copy)]
struct AlertContext<'a> {
    config: &'a Config,
    app: &'a AppConfig,
    matcher: &'a Matcher,
    text: &'a str,
    raw: &'a str,
}

impl AlertContext<'_> {
    fn alert(
        self,
        posted: &message::Message<'_>,
        found: &FoundIncident,
    ) -> anyhow::Result<AlertExplanation> {
        let envelope = envelope::parse(self.text);
        // The text may be a bare message: what only the event around it tells is then left empty.
        let callback = match &envelope {
            Ok(Envelope::Event(callback)) => Some(callback),
            _ => None,
        };
        let key = posted.key(&self.app.name, self.raw.as_bytes());
        let channel = [key.channel.clone()];
        let id = AlertId { message: key, ordinal: found.ordinal };
        let origin = Origin {
            id: &id,
            posted_at: posted.posted_at(callback.map_or(0, |it| it.event_time)),
            source: "push",
            event_id: callback.map_or("", |it| &it.event_id),
            team: callback.map_or("", |it| &it.team_id),
            bot_id: "",
        };
        let alert = alert_of_stored(self.raw.as_bytes(), found.attachment, &origin, self.matcher)?;
        let destinations = self.destinations(&channel, found);
        Ok(AlertExplanation { alert, destinations })
    }

    fn destinations(
        self,
        channel: &[ChannelId],
        found: &FoundIncident,
    ) -> Vec<DestinationExplanation> {
        let one = |destination: &crate::config::DestinationConfig| {
            let refused_by = destination.when.refusal(&self.app.name, channel, &found.incident);
            let name = destination.http.name.to_string();
            DestinationExplanation { name, takes: refused_by.is_none(), refused_by }
        };
        self.config.destinations.iter().map(one).collect()
    }
}

fn print(explanation: &MessageExplanation) {
    let MessageExplanation { outcome, reason, explanation, attachments, alerts } = explanation;
    let outcome = match *outcome {
        "alert" => "The message would become an alert",
        "near_miss" => "The message would be kept as a near miss",
        _ => "The message would be ignored",
    };
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    say(&format!("{outcome}{reason}: {explanation}."));
    for one in attachments {
        let title = if one.title.is_empty() { "without a title" } else { &one.title };
        say(&format!("attachment {} `{}`: {}", one.attachment, harmless(title), one.explanation));
    }
    for AlertExplanation { alert, destinations } in alerts {
        say(&format!("alert {}", harmless(&alert.id)));
        let rows = [
            ("name", &*alert.name),
            ("severity", alert.severity.level),
            ("category", &alert.category),
            ("script", &alert.script.url),
            ("host", &alert.host_domain.name),
            ("console", &alert.deep_link),
        ];
        for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
            say(&format!("  {name:<9} {}", harmless(value)));
        }
        if !alert.parse_problems.is_empty() {
            say(&format!("  problems  {}", alert.parse_problems.join(", ")));
        }
        for one in destinations {
            say(&match one.refused_by {
                None => format!("  sent to {}", one.name),
                Some(key) => format!("  not sent to {}: see `when.{key}`", one.name),
            });
        }
        if destinations.is_empty() {
            say("  no destination is configured");
        }
    }
}
