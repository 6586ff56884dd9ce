//! `demo`: the real relay between a Slack that is played here and a SOAR that only takes notes.
//!
//! It needs no configuration and no network: everything is on loopback ports. Configuration and
//! store lie in a temporary folder, so that the commands for operators work on it too.

use std::{
    fs,
    io::stdin,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::soar::{Note, Switch};
use super::{BadConfiguration, environment, sample, say, serve};
use crate::{
    clock::Clock,
    config::{self, Config},
    http_client,
    ids::MessageTs,
    secret::Secret,
    shutdown::Shutdown,
    slack::signature,
};

mod soar;

/// An alert that is not delivered by then is not delivered at all.
const PATIENCE: Duration = Duration::from_secs(15);

const SECRET: &str = "a-secret-for-the-demo-only";

/// Show the relay at work.
#[derive(Args, Debug)]
pub struct Demo {
    /// End as soon as the alert is delivered.
    #[arg(long)]
    once: bool,
    /// The age at which an undelivered alert is given up: short, to be seen.
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    max_age: String,
}

/// Where everything is.
struct Place {
    folder: PathBuf,
    soar: SocketAddr,
    max_age: String,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        serve::runtime()?.block_on(self.show())
    }

    async fn show(self) -> anyhow::Result<ExitCode> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let end_of_soar = Shutdown::new();
        let (soar, switch, mut notes) = soar::start(&end_of_soar)?;
        say(&format!("1. A pretend SOAR listens on http://{soar}/webhook."));
        let place = Place { folder: folder.path().to_owned(), soar, max_age: self.max_age };
        let relay = serve::Relay::start(place.configuration()?, Clock::system()).await?;
        let file = place.write(relay.public, relay.ops)?;
        let url = format!("http://{}/slack/events", relay.public);
        say(&format!("2. The relay listens on {url} for Slack, and on http://{} for", relay.ops));
        say(&format!(
            "   operators (API, /metrics, /readyz). Its configuration: {}.",
            shown(&file)
        ));
        post(&url).await?;
        let delivered = async { Some((notes.recv().await?, relay.settled().await)) };
        let Ok(Some((Note::Took { head, body }, ()))) =
            tokio::time::timeout(PATIENCE, delivered).await
        else {
            bail!("the alert was not delivered within {} s", PATIENCE.as_secs());
        };
        say("5. The SOAR received:\n");
        say(&indented(&head));
        say(&indented(&body));
        say("\n6. Delivered, and that is on disk too.");
        if !self.once {
            invite(&place, &file, relay.ops);
            listen_to_keys(switch);
            wait_for_the_end(&mut notes).await?;
        }
        relay.stop().await;
        end_of_soar.stop();
        end_of_soar.finished().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    /// The configuration as a person would write it.
    fn yaml(&self, public: SocketAddr, ops: SocketAddr) -> String {
        let max_age = &self.max_age;
        format!(
            "# Of a running `demo`; it is removed with it.\n\
             server: {{listen: '{public}', ops_listen: '{ops}', drain_delay: 0s}}\n\
             slack:\n  apps:\n    - {{name: main, signing_secret: {{file: signing-secret}}}}\n\
             store: {{sqlite: {{path: relay.db, max_size: 256MiB}}}}\n\
             destinations:\n  - name: soar\n    preset: google-secops-webhook\n    \
             url: {{file: soar-url}}\n    concurrency: 1\n    retry: {{max_age: '{max_age}'}}\n"
        )
    }

    fn configuration(&self) -> anyhow::Result<Config> {
        fs::write(self.folder.join("signing-secret"), SECRET)?;
        fs::write(self.folder.join("soar-url"), format!("http://{}/webhook", self.soar))?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let loaded = config::parse(&self.yaml(any, any), &self.folder, &environment);
        loaded.map(|loaded| loaded.config).map_err(|problems| {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            BadConfiguration(format!("--max-age: {}", list.join("; "))).into()
        })
    }

    /// The file for other commands, with the ports that the relay got.
    fn write(&self, public: SocketAddr, ops: SocketAddr) -> anyhow::Result<PathBuf> {
        let file = self.folder.join("relay.yaml");
        fs::write(&file, self.yaml(public, ops))?;
        Ok(file)
    }
}

/// Signs and posts the sample incident as Slack would.
async fn post(url: &str) -> anyhow::Result<()> {
    let secret = Secret::fixed("the demo's signing secret", SECRET)?;
    let clock = Clock::system();
    let now = clock.now();
    let body = sample::event(MessageTs::from_micros(now.micros())).to_string();
    say(&format!("3. Slack posts a Code Defender incident, signed, {} bytes.", body.len()));
    let client = http_client::build(&http_client::Settings::default())?;
    let started = clock.instant();
    let answer = client
        .post(url)
        .header("x-slack-request-timestamp", now.seconds())
        .header("x-slack-signature", signature::sign(&secret, now, body.as_bytes()))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await?;
    let took = clock.instant().saturating_duration_since(started);
    if !answer.status().is_success() {
        bail!("the relay answered {}", answer.status());
    }
    say(&format!(
        "4. The alert is on disk, and Slack has its answer: {} after {:.1} ms.",
        answer.status(),
        took.as_secs_f64() * 1_000.0
    ));
    Ok(())
}

/// What to try, to be copied into another terminal.
fn invite(place: &Place, file: &Path, ops: SocketAddr) {
    let program = std::env::current_exe().map_or_else(
        |_unknown| "slack-soar-relay".to_owned(),
        // In full: another terminal may be in another folder.
        |path| shown(&path),
    );
    let (soar, max_age, config) = (place.soar, &place.max_age, shown(file));
    let command = |what: &str| format!("   {program} {what} --config {config}");
    say(&format!(
        "\nNow operate it. Here: Enter stops the SOAR, and starts it again; Ctrl-C ends the demo.\n\
         (From elsewhere: curl http://{soar}/stop and curl http://{soar}/start.)\n\
         An alert that is undelivered for {max_age} is given up. In another terminal:\n\n\
         {}\n{}\n{}\n{}\n{}\n   curl http://{ops}/metrics\n",
        command("send-test"),
        command("alerts list"),
        command("alerts list --state dead"),
        command("alerts show ID"),
        command("alerts retry --all-dead"),
    ));
}

/// Each line stops or starts the SOAR. A thread of its own: nothing else can wait for a terminal,
/// and it ends with the process.
fn listen_to_keys(switch: Switch) {
    std::thread::spawn(move || {
        let lines = stdin().lines().map_while(Result::ok);
        lines.for_each(|_line| switch.toggle());
    });
}

/// Shows what else happens until Ctrl-C or SIGTERM.
async fn wait_for_the_end(notes: &mut mpsc::Receiver<Note>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let note = tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(note) = notes.recv() => note,
        };
        match note {
            Note::Took { body, .. } => say(&format!("\nThe SOAR received:\n{}", indented(&body))),
            Note::Refused => say("The SOAR is stopped: it was sent an alert and answered 503."),
            Note::Switched { stopped: true } => say("The SOAR is stopped."),
            Note::Switched { stopped: false } => say("The SOAR runs."),
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("     {line}")).collect();
    lines.join("\n")
}
