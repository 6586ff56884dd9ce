//! `demo`: the real relay between a Slack that is played here and a SOAR that only takes notes.
//!
//! It needs no configuration and no network: everything is on loopback ports, and the store lies in
//! a temporary folder.

use std::{
    convert::Infallible, net::SocketAddr, num::NonZeroUsize, process::ExitCode, time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{sample, say, serve};
use crate::{
    clock::Clock,
    code_defender::matcher,
    config::{App, Config, Destination, Server, Store},
    destination::{http, preset::Preset},
    http_client, http_server,
    ids::{AppName, DestinationName, MessageTs},
    intake::routing::When,
    secret::Secret,
    shutdown::Shutdown,
    slack::signature,
    store::Retention,
};

/// An alert that is not delivered by then is not delivered at all.
const PATIENCE: Duration = Duration::from_secs(15);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Show the relay at work.
#[derive(Args, Debug)]
pub struct Demo {
    /// End as soon as the alert is delivered.
    #[arg(long)]
    once: bool,
}

/// A request that the pretend SOAR received.
#[derive(Debug)]
struct Received {
    head: String,
    body: String,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        serve::runtime()?.block_on(self.show())
    }

    async fn show(self) -> anyhow::Result<ExitCode> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let secret = Secret::fixed("the demo's signing secret", "a-secret-for-the-demo-only")?;
        let end_of_soar = Shutdown::new();
        let (soar, mut received) = pretend_soar(&end_of_soar).await?;
        say(&format!("1. A pretend SOAR listens on http://{soar}/webhook."));
        let config = configuration(folder.path(), soar, &secret)?;
        let relay = serve::Relay::start(config, Clock::system()).await?;
        let url = format!("http://{}/slack/events", relay.public);
        say(&format!("2. The relay listens on {url} for Slack, and on http://{} for", relay.ops));
        say(&format!("   operators (/metrics, /readyz). Its store: {}.", folder.path().display()));
        post(&url, &secret).await?;
        let delivered = async { Some((received.recv().await?, relay.settled().await)) };
        let Ok(Some((request, ()))) = tokio::time::timeout(PATIENCE, delivered).await else {
            bail!("the alert was not delivered within {} s", PATIENCE.as_secs());
        };
        say("5. The SOAR received:\n");
        say(&indented(&request.head));
        say(&indented(&request.body));
        say("\n6. Delivered, and that is on disk too.");
        if !self.once {
            say(&format!("\nTry it: curl http://{}/metrics - Ctrl-C ends the demo.", relay.ops));
            wait_for_the_end(&mut received).await?;
        }
        relay.stop().await;
        end_of_soar.stop();
        end_of_soar.finished().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Signs and posts the sample incident as Slack would.
async fn post(url: &str, secret: &Secret) -> anyhow::Result<()> {
    let clock = Clock::system();
    let now = clock.now();
    let body = sample::event(MessageTs::from_micros(now.micros())).to_string();
    say(&format!("3. Slack posts a Code Defender incident, signed, {} bytes.", body.len()));
    let client = http_client::build(&http_client::Settings::default())?;
    let started = clock.instant();
    let answer = client
        .post(url)
        .header("x-slack-request-timestamp", now.seconds())
        .header("x-slack-signature", signature::sign(secret, now, body.as_bytes()))
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

/// Takes every request, says 200, and passes on what it was.
async fn pretend_soar(end: &Shutdown) -> anyhow::Result<(SocketAddr, mpsc::Receiver<Received>)> {
    let listener = http_server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let address = listener.local_addr()?;
    let (notes, received) = mpsc::channel(64);
    let service = service_fn(move |request: Request<Incoming>| {
        let notes = notes.clone();
        async move {
            let mut head = format!("{} {}", request.method(), request.uri().path());
            for (name, value) in request.headers() {
                head.extend(["\n", name.as_str(), ": ", value.to_str().unwrap_or("?")]);
            }
            let body = request.into_body().collect().await;
            let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let body = serde_json::from_slice::<serde_json::Value>(&bytes)
                .and_then(|json| serde_json::to_string_pretty(&json))
                .unwrap_or_else(|_no_json| String::from_utf8_lossy(&bytes).into_owned());
            drop(notes.send(Received { head, body }).await);
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("{}")))
        }
    });
    let settings = http_server::Settings { idle_timeout: Duration::from_secs(75) };
    end.spawn(http_server::serve(listener, service, settings, Clock::system(), end.clone()));
    Ok((address, received))
}

fn configuration(
    folder: &std::path::Path,
    soar: SocketAddr,
    secret: &Secret,
) -> anyhow::Result<Config> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(Config {
        server: Server {
            listen: loopback,
            ops_listen: loopback,
            idle_timeout: Duration::from_secs(10),
            drain_delay: Duration::ZERO,
        },
        apps: vec![App {
            name: AppName::new("main")?,
            signing_secrets: vec![secret.clone()],
            channels: Vec::new(),
            bots: Vec::new(),
        }],
        matching: matcher::Settings::default(),
        store: Store {
            postgres: None,
            path: folder.join("relay.db"),
            max_size_bytes: 256 * 1024 * 1024,
            lease: Duration::from_secs(90),
        },
        retention: Retention { delivered: 30 * DAY, dead: 90 * DAY },
        destinations: vec![Destination {
            http: http::Settings {
                name: DestinationName::new("soar")?,
                preset: Preset::load("google-secops-webhook", None)?,
                url: Secret::fixed("the pretend SOAR's URL", &format!("http://{soar}/webhook"))?,
                params: serde_json::Map::new(),
                timeout: Duration::from_secs(15),
                headers: Vec::new(),
                signing_secret: None,
                client: http_client::Settings::default(),
            },
            when: When::default(),
            concurrency: NonZeroUsize::MIN,
            rate_limit: None,
            max_age: 3 * DAY,
        }],
        secrets: Vec::new(),
    })
}

/// Shows what else arrives until Ctrl-C or SIGTERM.
async fn wait_for_the_end(received: &mut mpsc::Receiver<Received>) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(request) = received.recv() => {
                say(&format!("\nThe SOAR received:\n{}", indented(&request.body)));
            }
        }
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("     {line}")).collect();
    lines.join("\n")
}
