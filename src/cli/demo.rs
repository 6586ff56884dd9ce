//! `demo`: runs the real relay between a simulated Slack and a pretend SOAR that records requests.
//!
//! The demo needs neither a configuration nor a network: everything uses loopback ports.
//! Configuration and store are in a temporary folder, so that the commands for operators work too.

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
use super::{environment::environment, options::BadConfiguration, output::say, sample, serve};
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

/// Time limit for the delivery of the alert.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);

const SECRET: &str = "a-secret-for-the-demo-only";

/// Show the relay at work with a pretend SOAR.
#[derive(Args, Debug)]
pub struct Demo {
    /// Exit as soon as the alert is delivered.
    #[arg(long)]
    once: bool,
    /// Age at which an undelivered alert is given up. Short, so that you can see it happen.
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    max_age: String,
}

/// The demo's folder, the address of the pretend SOAR and the options.
struct Environment {
    folder: PathBuf,
    soar: SocketAddr,
    max_age: String,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        serve::runtime()?.block_on(self.show())
    }

    async fn show(self) -> anyhow::Result<ExitCode> {
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let soar_shutdown = Shutdown::new();
        let (soar, switch, mut events) = soar::start(&soar_shutdown)?;
        say(&format!("1. A pretend SOAR listens on http://{soar}/webhook."));
        let demo = Environment { folder: folder.path().to_owned(), soar, max_age: self.max_age };
        let relay = serve::Relay::start(demo.configuration()?, Clock::system()).await?;
        let file = demo.write(relay.public, relay.ops)?;
        let url = format!("http://{}/slack/events", relay.public);
        say(&format!("2. The relay listens on {url} for Slack, and on http://{} for", relay.ops));
        say(&format!(
            "   operators (API, /metrics, /readyz). Its configuration: {}.",
            shown(&file)
        ));
        post(&url).await?;
        // The SOAR has the alert before its outcome is stored; step 6 says that both are done.
        let delivered = async { Some((events.recv().await?, relay.settled().await)) };
        let Ok(Some((Note::Took { head, body }, ()))) =
            tokio::time::timeout(DELIVERY_TIMEOUT, delivered).await
        else {
            bail!("the alert was not delivered within {} s", DELIVERY_TIMEOUT.as_secs());
        };
        say("5. The SOAR received:\n");
        say(&indented(&head));
        say(&indented(&body));
        say("\n6. Delivered, and the outcome is on disk too.");
        if !self.once {
            print_suggestions(&demo, &file, relay.ops);
            toggle_on_enter(switch);
            report_until_signal(&mut events).await?;
        }
        // The relay stops first, so that an attempt in flight still gets its answer.
        relay.stop().await;
        soar_shutdown.stop();
        soar_shutdown.finished().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Environment {
    /// Returns the text of the configuration file.
    fn yaml(&self, public: SocketAddr, ops: SocketAddr) -> String {
        let max_age = &self.max_age;
        format!(
            "# The configuration of a running `demo`, removed when the demo ends.\n\
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

    /// Writes the configuration file for other commands, with the ports that the relay was given.
    fn write(&self, public: SocketAddr, ops: SocketAddr) -> anyhow::Result<PathBuf> {
        let file = self.folder.join("relay.yaml");
        fs::write(&file, self.yaml(public, ops))?;
        Ok(file)
    }
}

/// Signs and posts the sample incident as Slack does.
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
        "4. The alert is on disk, and Slack was answered {} after {:.1} ms.",
        answer.status(),
        took.as_secs_f64() * 1_000.0
    ));
    Ok(())
}

/// Prints commands to copy into another terminal.
fn print_suggestions(demo: &Environment, file: &Path, ops: SocketAddr) {
    let program = std::env::current_exe().map_or_else(
        |_unknown| "slack-soar-relay".to_owned(),
        // The full path, since another terminal may be in another folder.
        |path| shown(&path),
    );
    let soar = demo.soar;
    let max_age = &demo.max_age;
    let config = shown(file);
    let command = |arguments: &str| format!("   {program} {arguments} --config {config}");
    say(&format!(
        "\nNow try it yourself. Press Enter to stop the SOAR or start it again, Ctrl-C to end.\n\
         (From elsewhere: curl http://{soar}/stop and curl http://{soar}/start.)\n\
         An alert that stays undelivered for {max_age} is given up. In another terminal:\n\n\
         {}\n{}\n{}\n{}\n{}\n   curl http://{ops}/metrics\n",
        command("send-test"),
        command("alerts list"),
        command("alerts list --state dead"),
        command("alerts show ID"),
        command("alerts retry --all-dead"),
    ));
}

/// Stops or starts the SOAR for each line of standard input.
fn toggle_on_enter(switch: Switch) {
    // Reading from a terminal blocks; the thread ends with the process.
    std::thread::spawn(move || {
        let lines = stdin().lines().map_while(Result::ok);
        lines.for_each(|_line| switch.toggle());
    });
}

/// Reports the events of the SOAR until Ctrl-C or SIGTERM.
async fn report_until_signal(events: &mut mpsc::Receiver<Note>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let event = tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(event) = events.recv() => event,
        };
        match event {
            Note::Took { body, .. } => {
                say(&format!("\nThe SOAR received:\n{}", indented(&body)));
            }
            Note::Refused => {
                say("The SOAR is stopped: it received an alert and answered 503.");
            }
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
