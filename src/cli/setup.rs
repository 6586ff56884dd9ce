//! `setup`: creates a first configuration from a few questions.
//!
//! Answers are read line by line from standard input, so that a script can give them too. Secrets
//! are written to files of their own beside the configuration, readable only by their owner.

use std::{
    fs::{self, File},
    io::{self, BufRead, IsTerminal, Write, stdin, stdout},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use url::Url;

use super::{
    check::Check,
    manifest::{base_url, link, needs_of_channels},
    options::{BadConfiguration, Common},
    output::say,
};
use crate::{
    destination::preset::{Preset, Transport, params::ParamDoc},
    slack::manifest::{ChannelKind, manifest},
};

/// Folder of the secret files, beside the configuration.
const SECRETS: &str = "secrets";

/// Preset for an empty answer.
const DEFAULT_PRESET: &str = "google-secops-webhook";

/// Create a first configuration from a few questions, and check it.
#[derive(Args, Debug)]
pub struct Setup {}

impl Setup {
    #[expect(clippy::unused_self, reason = "every subcommand runs the same way")]
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let path = common.path();
        if path.exists() {
            let message = format!(
                "{} exists already and is not changed: name another file with --config, or move \
                 this one away",
                path.display()
            );
            return Err(BadConfiguration(message).into());
        }
        let folder = path.parent().unwrap_or(Path::new("")).join(SECRETS);
        // Checked before the questions: the answers would be lost.
        if let Some(secret) = existing_secret(&folder) {
            let message = format!(
                "{} exists already, and secrets are not overwritten: move {} away",
                secret.display(),
                folder.display()
            );
            return Err(BadConfiguration(message).into());
        }
        let answers = Answers::ask(&mut Prompt::new())?;
        answers.write(&path, &folder)?;
        say(&format!("\nWrote {} and the files in {}.", path.display(), folder.display()));
        let code = Check::text().run(&path)?;
        say(&answers.next_steps(&path));
        Ok(code)
    }
}

/// Returns a secret file of an earlier setup, if there is one.
fn existing_secret(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_ours = |name: &str| name.starts_with("slack-") || name.starts_with("soar-");
    files
        .map(|file| file.path())
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours))
}

/// The answers to all questions.
struct Answers {
    channel: String,
    signing_secret: String,
    /// The bot token; empty without catch-up.
    bot_token: String,
    destination: DestinationAnswers,
}

/// The answers about the destination.
struct DestinationAnswers {
    preset: String,
    url: Option<String>,
    params: Vec<(ParamDoc, String)>,
}

impl Answers {
    fn ask(prompt: &mut Prompt) -> anyhow::Result<Self> {
        let url = prompt.ask("1. Address at which Slack reaches the relay (https://...)", https)?;
        let channel = prompt.ask(
            "2. Slack channel with the incidents: its id, such as C0123456789, or its name",
            channel,
        )?;
        let kinds = if is_id(&channel) {
            ChannelKind::of(&channel).to_vec()
        } else {
            // A name does not tell the kind, so the Slack app gets the scopes for both.
            vec![ChannelKind::Public, ChannelKind::Private]
        };
        let app = manifest(&needs_of_channels(&base_url(&url), kinds));
        say(&format!(
            "\nCreate the Slack app: open this address, choose the workspace, press Create, then \
             Install to Workspace.\n\n{}\n",
            link(&app)?
        ));
        let signing_secret = prompt.ask_secret(
            "3. Signing secret of the app (Basic Information, App Credentials)",
            signing_secret,
        )?;
        let bot_token = prompt.ask_secret(
            "4. Bot token (OAuth & Permissions, begins with xoxb-); leave empty for no catch-up",
            bot_token,
        )?;
        if bot_token.is_empty() && !is_id(&channel) {
            bail!("without a bot token the channel must be given by its id, not by its name");
        }
        let destination = DestinationAnswers::ask(prompt)?;
        Ok(Self { channel, signing_secret, bot_token, destination })
    }

    /// Writes the configuration and the secrets.
    fn write(&self, path: &Path, folder: &Path) -> anyhow::Result<()> {
        // The configuration refers to the secrets, so it is written last.
        make_folder(folder)?;
        let mut secrets = vec![
            ("slack-signing-secret", &self.signing_secret),
            ("slack-bot-token", &self.bot_token),
        ];
        secrets.extend(self.destination.url.as_ref().map(|url| ("soar-url", url)));
        for (name, value) in secrets.into_iter().filter(|(_, value)| !value.is_empty()) {
            write_new(&folder.join(name), value, OWNER_ONLY)?;
        }
        for (param, value) in self.destination.params.iter().filter(|(param, _)| is_secret(param)) {
            write_new(&folder.join(format!("soar-{}", param.name)), value, OWNER_ONLY)?;
        }
        write_new(path, &self.yaml(), READABLE)
    }

    fn yaml(&self) -> String {
        let token = if self.bot_token.is_empty() {
            "# bot_token: {file: secrets/slack-bot-token}   # for catch-up"
        } else {
            "bot_token: {file: secrets/slack-bot-token}"
        };
        let mut yaml = format!(
            "# Every setting, with its default: docs/configuration.md\n\
             slack:\n  apps:\n    - name: main\n      \
             signing_secret: {{file: secrets/slack-signing-secret}}\n      {token}\n      \
             channels: [{}]\n\
             destinations:\n  - name: soar\n    preset: {}\n",
            // JSON text is quoted text in YAML too, so an answer cannot change the structure of the
            // file.
            json!(self.channel),
            self.destination.preset
        );
        if self.destination.url.is_some() {
            yaml += "    url: {file: secrets/soar-url}\n";
        }
        if !self.destination.params.is_empty() {
            yaml += "    params:\n";
        }
        for (param, value) in &self.destination.params {
            let name = &param.name;
            let value = match param.kind {
                "secret" => format!("{{file: secrets/soar-{name}}}"),
                "integer" | "boolean" => value.clone(),
                _ => json!(value).to_string(),
            };
            yaml.extend([format!("      {name}: {value}\n")]);
        }
        yaml
    }

    fn next_steps(&self, path: &Path) -> String {
        let config = path.display();
        let mut steps = vec![
            "in Slack, Event Subscriptions: switch Delayed Events on".to_owned(),
            format!("in Slack, channel {}: /invite the app", self.channel),
            "if Code Defender does not post there yet: in Slack, Incoming Webhooks, add one for \
             the channel, and give its URL to the vendor's support"
                .to_owned(),
            format!("slack-soar-relay serve --config {config}"),
            format!("slack-soar-relay doctor --config {config}"),
            format!("slack-soar-relay send-test --config {config}"),
        ];
        for (number, step) in (1..).zip(&mut steps) {
            step.insert_str(0, &format!("  {number}. "));
        }
        format!("\nNext steps:\n{}", steps.join("\n"))
    }
}

impl DestinationAnswers {
    fn ask(prompt: &mut Prompt) -> anyhow::Result<Self> {
        let question = format!("5. Preset of the SOAR [{DEFAULT_PRESET}]");
        let name = prompt.ask(&question, preset)?;
        let preset = Preset::builtin(&name).context("the preset does not exist")?;
        let needs_url = preset.transport() == Transport::Http && preset.url().is_none()
            || preset.transport() == Transport::Email;
        let url = needs_url
            .then(|| prompt.ask_secret("   URL of the SOAR", destination_url))
            .transpose()?;
        let mut params = Vec::new();
        for param in preset.params_documented().into_iter().filter(|param| param.default.is_none())
        {
            let question = format!("   {}: {}", param.name, param.help.trim_end_matches('.'));
            let given = |text: &str| not_empty(text);
            let value = if is_secret(&param) {
                prompt.ask_secret(&question, given)?
            } else {
                prompt.ask(&question, given)?
            };
            params.push((param, value));
        }
        Ok(Self { preset: name, url, params })
    }
}

fn is_secret(param: &ParamDoc) -> bool {
    param.kind == "secret"
}

/// Asks on standard output and reads from standard input.
struct Prompt {
    is_terminal: bool,
}

impl Prompt {
    fn new() -> Self {
        Self { is_terminal: stdin().is_terminal() }
    }

    /// Asks until the answer is valid. For a script, an invalid answer is an error.
    fn ask<T>(
        &mut self,
        question: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        self.ask_with(question, read_line, check)
    }

    /// Asks for a secret, which a terminal does not show.
    fn ask_secret<T>(
        &mut self,
        question: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let read = if self.is_terminal { rpassword::read_password } else { read_line };
        self.ask_with(question, read, check)
    }

    fn ask_with<T>(
        &mut self,
        question: &str,
        read: fn() -> io::Result<String>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        loop {
            write!(stdout(), "{question}: ")?;
            stdout().flush()?;
            let answer = read().context("no answer was given")?;
            if !self.is_terminal {
                // A terminal shows the line break that was typed; otherwise the next line would
                // follow the question.
                say("");
            }
            match check(answer.trim()) {
                Ok(valid) => return Ok(valid),
                Err(problem) if self.is_terminal => say(&format!("   {problem}")),
                // A script is not asked again: its next line answers the next question.
                Err(problem) => bail!("{}: {problem}", question.trim_start()),
            }
        }
    }
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    match stdin().lock().read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an answer is needed".to_owned()) } else { Ok(text.to_owned()) }
}

fn https(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_malformed| format!("{text} is not a URL"))?;
    if url.scheme() == "https" && url.host().is_some() {
        Ok(url)
    } else {
        Err("Slack calls only https:// URLs; a proxy may terminate TLS".to_owned())
    }
}

fn is_id(channel: &str) -> bool {
    let id = channel.len() >= 9 && channel.starts_with(['C', 'G', 'D']);
    id && channel.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn channel(text: &str) -> Result<String, String> {
    not_empty(text.trim_start_matches('#'))
}

fn signing_secret(text: &str) -> Result<String, String> {
    let looks_right = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if looks_right {
        Ok(text.to_owned())
    } else {
        Err("a signing secret has 32 hexadecimal digits".to_owned())
    }
}

fn bot_token(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with("xoxb-") {
        Ok(text.to_owned())
    } else {
        Err("a bot token begins with xoxb-".to_owned())
    }
}

fn preset(text: &str) -> Result<String, String> {
    let name = if text.is_empty() { DEFAULT_PRESET } else { text };
    if Preset::builtin(name).is_some() {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = Preset::builtin_names().collect();
    Err(format!("{name} is not a preset; the presets are {}", names.join(", ")))
}

fn destination_url(text: &str) -> Result<String, String> {
    let url: Result<Url, _> = text.parse();
    match url {
        Ok(url) if url.host().is_some() => Ok(text.to_owned()),
        // The answer is not shown, since a URL may contain a secret.
        Ok(_) | Err(_) => Err("the answer is not a URL".to_owned()),
    }
}

const OWNER_ONLY: u32 = 0o600;
const READABLE: u32 = 0o644;

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))
}

/// Writes a file that must not exist yet, so that a secret in use is not overwritten by accident.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let write = || -> io::Result<()> {
        let mut file: File = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.trim_end().as_bytes())?;
        file.write_all(b"\n")
    };
    let path: PathBuf = path.to_owned();
    write().with_context(|| format!("cannot write {}", path.display()))
}
