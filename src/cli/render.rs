//! `render`: prints the request that would be sent to a destination, with secrets masked.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Args;

use super::{
    options::{BadConfiguration, Common},
    output::say,
    sample,
};
use crate::{
    alert::{
        Alert,
        mapping::{Origin, alert_of_stored},
    },
    clock::Clock,
    code_defender::{
        matcher::{Matcher, Watch},
        settings::MatchSettings,
        verdict::{FoundIncident, Verdict},
    },
    destination::{
        Destination, Settings,
        preset::{Preset, Transport},
    },
    http_client,
    ids::{AlertId, AppName, DestinationName},
    logging::chain,
    secret::Secret,
    slack::{
        self,
        envelope::{self, Envelope},
        message,
    },
};

/// Print the request that would be sent for a message.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub struct Render {
    /// Name of a destination of the configuration.
    #[arg(long, group = "whose", value_name = "NAME")]
    destination: Option<String>,
    /// Name of a preset, rendered with placeholder parameters. Does not need a configuration.
    #[arg(long, group = "whose", value_name = "NAME")]
    preset: Option<String>,
    /// JSON file with a Slack message or event [default: the sample incident].
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// Print one JSON object for each request.
    #[arg(long)]
    json: bool,
}

impl Render {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let (settings, matching) = match (&self.preset, &self.destination) {
            (Some(preset), _) => (placeholder(preset)?, MatchSettings::default()),
            (None, Some(name)) => {
                let config = common.load()?;
                let mut destinations = config.destinations.into_iter();
                let found = destinations.find(|one| one.http.name.as_str() == name);
                let found = found
                    .ok_or_else(|| BadConfiguration(format!("no destination is named `{name}`")))?;
                (found.http, config.matching)
            }
            (None, None) => bail!("give --destination or --preset"),
        };
        let destination = Destination::new(settings, Clock::system())?;
        for alert in self.alerts(&Matcher::new(matching))? {
            let request = destination.render(&alert).map_err(|error| {
                anyhow::anyhow!("the request cannot be rendered: {}", chain(&error))
            })?;
            if self.json {
                let headers: BTreeMap<_, _> = request.headers.iter().cloned().collect();
                say(&serde_json::to_string_pretty(&serde_json::json!({
                    "method": request.method, "url": request.url, "headers": headers,
                    "body": serde_json::from_str::<serde_json::Value>(&request.body)?,
                }))?);
            } else {
                say(&request.to_string());
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the alerts of the message.
    fn alerts(&self, matcher: &Matcher) -> anyhow::Result<Vec<Alert>> {
        let body = match &self.message {
            Some(path) => fs::read(path).with_context(|| path.display().to_string())?,
            None => sample::event(sample::DOCUMENTED).to_string().into_bytes(),
        };
        let text = slack::readable(&body);
        let mut envelope = (String::new(), String::new(), 0);
        if let Ok(Envelope::Event(callback)) = envelope::parse(&text) {
            let (event_id, team) = (callback.event_id.to_string(), callback.team_id.to_string());
            envelope = (event_id, team, callback.event_time);
        }
        let raw = envelope::inner_event(&text).unwrap_or(&text);
        let (event_id, team, event_time) = envelope;
        let posted = message::parse(raw).context("the file does not contain a Slack message")?;
        // An empty watch accepts every channel and bot: the question is the form of the request,
        // and not whether the relay would take the message.
        let found = match matcher.judge(&posted, raw, &Watch::default()) {
            Verdict::Incidents(found) | Verdict::NewLayout(found, _) => found,
            Verdict::NearMiss(_, doubt) => {
                bail!("the message is not an incident but a near miss: {}", doubt.explain())
            }
            Verdict::Refused(reason) | Verdict::Ignored(reason) => {
                bail!("the message is not an incident: ignored as `{}`", reason.label())
            }
        };
        let key = posted.key(&AppName::new("main")?, raw.as_bytes());
        let alert = |FoundIncident { ordinal, attachment, .. }: FoundIncident| {
            let origin = Origin {
                id: &AlertId { message: key.clone(), ordinal },
                posted_at: posted.posted_at(event_time),
                source: "push",
                event_id: &event_id,
                team: &team,
                bot_id: "",
            };
            Ok(alert_of_stored(raw.as_bytes(), attachment, &origin, matcher)?)
        };
        found.into_iter().map(alert).collect()
    }
}

/// Returns settings with placeholders for the URL and the parameters.
fn placeholder(preset: &str) -> anyhow::Result<Settings> {
    let preset = Preset::load(preset, None).map_err(|error| BadConfiguration(error.to_string()))?;
    let example = match preset.transport() {
        Transport::Email => "smtp://mail.example.com",
        Transport::Http | Transport::Stdout | Transport::Feed => "https://soar.example.com/",
    };
    let url = Secret::fixed("url", preset.url().unwrap_or(example))?;
    Ok(Settings {
        name: DestinationName::new("placeholder")?,
        params: preset.placeholders(),
        secrets: BTreeMap::new(),
        preset,
        url,
        timeout: Duration::from_secs(15),
        headers: Vec::new(),
        signing_secret: None,
        client: http_client::Settings::default(),
    })
}
