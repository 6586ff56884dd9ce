//! Sanity checks of valid files: values that cannot have an effect are errors, and values that may
//! lose alerts or expose secrets are warnings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use url::{Host, Url};

use super::{
    checked::DestinationConfig,
    file::{self, File, TestIncidents},
    resolve::{DAY, Resolver},
    slack::is_channel_id,
    tree::escape,
};
use crate::{code_defender::settings::TitlePattern, secret::Secret, store::IDENTITY_KEPT};

/// A longer drain leaves too little of the 30 s that Kubernetes grants a process by default.
const MAX_USUAL_DRAIN: Duration = Duration::from_secs(10);

/// A shorter token of the API may be guessed.
const MIN_TOKEN_CHARACTERS: usize = 24;

/// An outage of a destination may easily last this long.
const MIN_USUAL_AGE: Duration = Duration::from_secs(3600);

/// Deliveries leased by a relay that crashed wait for the end of their leases.
const MAX_USUAL_LEASE: Duration = Duration::from_secs(900);

/// Few disks are larger.
const MAX_USUAL_SIZE: u64 = 1 << 40;

impl Resolver<'_> {
    /// Checks everything that does not need the values of secrets.
    pub(super) fn check_sanity(&mut self, file: &File) {
        self.check_listeners(&file.server);
        self.check_apps(&file.slack.apps);
        self.check_titles(&file.matching.titles);
        self.check_field_titles(&file.matching.fields);
        self.check_catch_up(file);
        self.check_sqlite(&file.store.sqlite);
        self.check_retention(&file.retention);
        if file.delivery.lease.0 > MAX_USUAL_LEASE {
            let message = "more than 15m: with PostgreSQL, deliveries of a relay that crashed \
                           wait that long";
            self.warn("/delivery/lease", message);
        }
        if let Some(dir) = &file.presets_dir {
            self.check_presets_dir(&self.context.dir.join(dir));
        }
        for (index, destination) in file.destinations.iter().enumerate() {
            self.check_destination(&format!("/destinations/{index}"), destination, file);
        }
        let takes_real = |destination: &file::DestinationSection| {
            !matches!(destination.when.test, TestIncidents::Only)
        };
        if !file.destinations.is_empty() && !file.destinations.iter().any(takes_real) {
            let message = "every destination takes tests only: real incidents are sent nowhere";
            self.warn("/destinations/0/when/test", message);
        }
    }

    fn check_listeners(&mut self, server: &file::ServerSection) {
        for (key, address) in [("listen", server.listen), ("ops_listen", server.ops_listen)] {
            if address.port() == 0 {
                let message = "port 0: the relay listens on another port after each start";
                self.warn(&format!("/server/{key}"), message);
            }
        }
        // Not an error: health and metrics are served without a token.
        if !server.ops_listen.ip().is_loopback() && server.ops_token.is_none() {
            self.warn_with(
                "/server/ops_listen",
                "is not a loopback address and `ops_token` is not set: the API is off",
                "set `ops_token`, or listen on 127.0.0.1",
            );
        }
        if server.drain_delay.0 > MAX_USUAL_DRAIN {
            let message = "more than 10s: the whole shutdown takes longer than the 30s that \
                           Kubernetes grants by default";
            let hint = "set terminationGracePeriodSeconds to this delay plus 25s";
            self.warn_with("/server/drain_delay", message, hint);
        }
    }

    fn check_apps(&mut self, apps: &[file::AppSection]) {
        let mut channels = BTreeMap::new();
        for (index, app) in apps.iter().enumerate() {
            let at = format!("/slack/apps/{index}");
            self.warn_of_duplicates(&format!("{at}/channels"), &app.channels, |text| {
                text.trim_start_matches('#').to_owned()
            });
            for (place, channel) in app.channels.iter().enumerate() {
                let first = channels.entry(channel.as_str()).or_insert(app.name.as_str());
                if *first != app.name {
                    let message = format!(
                        "`{channel}` is also a channel of the app `{first}`: each incident in it \
                         becomes two alerts"
                    );
                    self.warn(&format!("{at}/channels/{place}"), message);
                }
            }
            self.check_bots(&format!("{at}/bots"), &app.bots);
        }
    }

    fn check_bots(&mut self, at: &str, bots: &[String]) {
        if bots.is_empty() {
            self.warn_with(
                at,
                "empty: everything that can post in the channel (a webhook, a workflow, an app of \
                 a Slack Connect partner) can create alerts",
                "list the `app_id` or `bot_id` that posts incidents; `doctor` lists those seen",
            );
        }
        self.warn_of_duplicates(at, bots, str::to_owned);
        for (index, bot) in bots.iter().enumerate() {
            let mut bytes = bot.bytes();
            let is_id = bytes.next().is_some_and(|first| b"AB".contains(&first))
                && bot.len() > 1
                && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            if !is_id {
                let message = format!("`{bot}` is not the id of an app or a bot");
                let hint = "an app's id looks like A0123456789, a bot's like B0123456789";
                self.problem_with(&format!("{at}/{index}"), message, hint);
            }
        }
    }

    fn check_titles(&mut self, titles: &[String]) {
        self.warn_of_duplicates("/match/titles", titles, str::to_lowercase);
        for (index, title) in titles.iter().enumerate() {
            let at = format!("/match/titles/{index}");
            let title = title.trim();
            let rest = title.strip_prefix('/').filter(|rest| !rest.is_empty());
            if rest.is_some_and(|rest| !rest.ends_with('/')) {
                let message = "is compared as a text: a regular expression begins and ends with /";
                let hint = "write /expression/; start the expression with (?i) to ignore case";
                self.warn_with(&at, message, hint);
            } else if TitlePattern::parse(title).is_ok_and(|pattern| pattern.matches("")) {
                let message = "matches every title: every attachment of a bot becomes an alert";
                self.warn(&at, message);
            }
        }
    }

    fn check_field_titles(&mut self, fields: &file::FieldsSection) {
        let mut known = BTreeMap::new();
        let lists = [("script", &fields.script), ("risk", &fields.risk), ("host", &fields.host)];
        for (name, titles) in lists {
            let at = format!("/match/fields/{name}");
            if titles.is_empty() {
                self.warn(&at, "empty: this field of incidents is not read");
            }
            self.warn_of_duplicates(&at, titles, str::to_lowercase);
            for (index, title) in titles.iter().enumerate() {
                let at = format!("{at}/{index}");
                let first = known.entry(title.trim().to_lowercase()).or_insert(name);
                if title.trim().is_empty() {
                    self.problem(&at, "a title must not be empty");
                } else if *first != name {
                    let message = format!("`{title}` is also a title of `{first}`");
                    self.warn(&at, message);
                }
            }
        }
    }

    fn check_catch_up(&mut self, file: &File) {
        let has_key = |key: &str| self.context.positions.has(key);
        let is_written = has_key("/catch_up");
        if is_written && file.slack.apps.iter().all(|app| app.bot_token.is_none()) {
            self.warn("/catch_up", "has no effect: no app has a `bot_token`");
        }
        let file::CatchUpSection { every, overlap, settle, first_lookback } = &file.catch_up;
        if overlap.0 < settle.0 {
            let message = "is less than `settle`: messages that Slack shows late may be missed";
            self.warn("/catch_up/overlap", message);
        }
        if !first_lookback.0.is_zero() && first_lookback.0 < every.0 {
            let message = "is less than `every`: messages posted shortly before the first start \
                           may be missed";
            self.warn("/catch_up/first_lookback", message);
        }
    }

    fn check_sqlite(&mut self, sqlite: &file::SqliteSection) {
        const PATH: &str = "/store/sqlite/path";
        let path = &sqlite.path;
        let text = path.to_string_lossy();
        if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
            let hint = "write a path such as /var/lib/slack-soar-relay/relay.db";
            self.problem_with(PATH, "is not the path of a file", hint);
        } else if self.context.dir.join(path).is_dir() {
            let hint = "name a file in it, such as relay.db";
            self.problem_with(PATH, "is a folder", hint);
        }
        if sqlite.max_size.0 > MAX_USUAL_SIZE {
            let message = "more than 1TiB: the disk fills up first, and then alerts are refused";
            self.warn("/store/sqlite/max_size", message);
        }
    }

    fn check_retention(&mut self, retention: &file::RetentionSection) {
        for (key, span) in [("delivered", retention.delivered), ("dead", retention.dead)] {
            let at = format!("/retention/{key}");
            if span.0.is_zero() {
                let message = "0 keeps nothing: alerts could neither be looked at nor retried";
                self.problem_with(&at, message, "write \"30d\", at least \"1h\"");
            } else if span.0 > IDENTITY_KEPT {
                let message = "more than 400d: the relay recognises known messages for 400d only";
                if key == "delivered" {
                    self.problem(&at, message);
                } else {
                    self.warn(&at, message);
                }
            } else if span.0 < Duration::from_secs(DAY) {
                self.warn(&at, "less than a day: alerts are removed before anybody looks at them");
            }
        }
    }

    fn check_presets_dir(&mut self, dir: &Path) {
        const AT: &str = "/presets_dir";
        let Ok(entries) = fs::read_dir(dir) else {
            let message = format!("the folder {} cannot be read", dir.display());
            let hint = "relative paths are relative to the configuration file";
            return self.problem_with(AT, message, hint);
        };
        let is_preset = |path: &Path| path.extension().is_some_and(|end| end == "yaml");
        if !entries.flatten().any(|entry| is_preset(&entry.path())) {
            self.warn(AT, "does not contain presets: no file in it ends in .yaml");
        }
    }

    fn check_destination(&mut self, at: &str, destination: &file::DestinationSection, file: &File) {
        let max_age = destination.retry.max_age.0;
        let age_at = format!("{at}/retry/max_age");
        if max_age.is_zero() {
            let message = "0: every alert would be given up before it is sent";
            self.problem_with(&age_at, message, "write \"72h\"");
        } else if max_age > IDENTITY_KEPT {
            self.problem(&age_at, "must be 400d at most");
        } else if max_age < MIN_USUAL_AGE {
            let message = "less than 1h: alerts are given up during a short outage";
            self.warn(&age_at, message);
        }
        if let Some(rate) = destination.rate_limit.filter(|rate| rate.is_rounded) {
            let message = format!("is rounded down to {}/min", rate.per_minute);
            self.warn(&format!("{at}/rate_limit"), message);
        }
        let mut headers = BTreeSet::new();
        for name in destination.headers.keys() {
            if !headers.insert(name.to_ascii_lowercase()) {
                let at = format!("{at}/headers/{}", escape(name));
                self.problem(&at, "is listed twice: header names ignore case");
            }
        }
        self.check_when(&format!("{at}/when"), &destination.when, &file.slack.apps);
    }

    /// Reports conditions that no alert can meet.
    fn check_when(&mut self, at: &str, when: &file::WhenSection, apps: &[file::AppSection]) {
        for (key, list) in [("apps", &when.apps), ("channels", &when.channels)] {
            let at = format!("{at}/{key}");
            if list.is_empty() && self.context.positions.has(&at) {
                let hint = format!("remove `{key}` to receive the alerts of all {key}");
                self.problem_with(&at, "is empty: no alert would be sent", &hint);
            }
            self.warn_of_duplicates(&at, list, str::to_owned);
        }
        if !self.context.discarded.has("/slack")
            && !self.context.discarded.has_within("/slack/apps")
        {
            self.warn_of_unwatched(&format!("{at}/channels"), when, apps);
        }
    }

    /// Warns of channels in a condition from which the selected apps do not accept incidents.
    fn warn_of_unwatched(&mut self, at: &str, when: &file::WhenSection, apps: &[file::AppSection]) {
        let is_selected =
            |app: &&file::AppSection| when.apps.is_empty() || when.apps.contains(&app.name);
        let selected: Vec<_> = apps.iter().filter(is_selected).collect();
        // The id of a channel that is given by name is not known here.
        let is_open = |app: &&file::AppSection| {
            app.channels.is_empty() || !app.channels.iter().all(|id| is_channel_id(id))
        };
        if selected.is_empty() || selected.iter().any(is_open) {
            return;
        }
        let is_watched = |id: &String| selected.iter().any(|app| app.channels.contains(id));
        for (index, id) in when.channels.iter().enumerate().filter(|(_, id)| !is_watched(id)) {
            // Not an error: Slack may have changed the id of a channel that is listed by its old
            // id.
            let message = format!(
                "`{id}` is not in the `channels` of these apps: no alert comes from it, unless it \
                 is the new id of a channel that is listed"
            );
            self.warn(&format!("{at}/{index}"), message);
        }
    }

    /// Warns of entries that are equal after normalisation.
    fn warn_of_duplicates(
        &mut self,
        at: &str,
        list: &[String],
        normalise: impl Fn(&str) -> String,
    ) {
        let mut seen = BTreeSet::new();
        for (index, text) in list.iter().enumerate() {
            if !seen.insert(normalise(text.trim())) {
                self.warn(&format!("{at}/{index}"), format!("`{text}` is listed twice"));
            }
        }
    }

    /// Warns of a token of the API that is too short.
    pub(super) fn check_ops_token(&mut self, token: &Secret) {
        if token.reveal().chars().count() < MIN_TOKEN_CHARACTERS {
            let message = format!("has fewer than {MIN_TOKEN_CHARACTERS} characters");
            self.warn_with(
                "/server/ops_token",
                message,
                "generate a token with: openssl rand -hex 24",
            );
        }
    }

    /// Reports secrets of Slack that were confused with one another, and warns of duplicates.
    pub(super) fn check_slack_secrets(
        &mut self,
        at: &str,
        current: Option<&Secret>,
        previous: Option<&Secret>,
        bot_token: Option<&Secret>,
    ) {
        for (key, secret) in [("signing_secret", current), ("previous_signing_secret", previous)] {
            if secret.is_some_and(|secret| is_token(&secret.reveal())) {
                let message = "is a token, not a signing secret: every push would be refused";
                let hint =
                    "see Basic Information, App Credentials, Signing Secret on the app's page";
                self.problem_with(&format!("{at}/{key}"), message, hint);
            }
        }
        if let (Some(current), Some(previous)) = (current, previous)
            && *current.reveal() == *previous.reveal()
        {
            let message = "is the same as `signing_secret`";
            self.warn(&format!("{at}/previous_signing_secret"), message);
        }
        if bot_token.is_some_and(|token| token.reveal().starts_with("xapp-")) {
            let message = "is an app-level token, which cannot read channels";
            let hint = "see OAuth & Permissions, Bot User OAuth Token (xoxb-...) on the app's page";
            self.problem_with(&format!("{at}/bot_token"), message, hint);
        }
    }

    /// Warns of a URL through which `what` would be sent unencrypted.
    pub(super) fn warn_if_in_clear(&mut self, at: &str, url: &str, what: &str) {
        let url = Url::parse(url).ok();
        if url.is_some_and(|url| url.scheme() == "http" && !is_loopback(&url)) {
            let message = format!("http:// to another host: {what} are sent in clear text");
            self.warn_with(at, message, "use https://");
        }
    }

    /// Warns of a database connection that may be unencrypted: without `sslmode=require` the driver
    /// falls back to a connection without TLS.
    pub(super) fn warn_if_database_in_clear(&mut self, at: &str, url: &str) {
        let is_safe = ["sslmode=require", "sslmode=verify"].iter().any(|mode| url.contains(mode));
        let host = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        let is_local = ["localhost", "127.", "[::1]", "%2F", "%2f", "/"]
            .iter()
            .any(|start| host.starts_with(start) || url.contains(&format!("host={start}")));
        if !is_safe && !is_local {
            let message = "without sslmode=require: the password and alerts may be sent in clear \
                           text";
            self.warn_with(at, message, "add ?sslmode=require");
        }
    }

    /// Warns of destinations that send the same request to the same URL. Each destination comes
    /// with its index in the file.
    pub(super) fn warn_of_same_receivers(&mut self, resolved: &[(usize, DestinationConfig)]) {
        let text = |secret: &Secret| secret.reveal().trim().to_owned();
        let key = |destination: &DestinationConfig| {
            let http = &destination.http;
            let secrets: Vec<_> =
                http.secrets.iter().map(|(name, secret)| (name.clone(), text(secret))).collect();
            // Many services have one URL for all customers: a key or a parameter tells the
            // receivers apart.
            (http.preset.name().to_owned(), text(&http.url), http.params.clone(), secrets)
        };
        for (position, (index, destination)) in resolved.iter().enumerate() {
            let mut earlier = resolved.iter().take(position);
            if destination.http.feed_token().is_none()
                && let Some((_, same)) = earlier.find(|(_, other)| key(other) == key(destination))
            {
                let message = format!(
                    "sends to the same URL as `{}`: alerts that meet both `when` are sent twice",
                    same.http.name
                );
                self.warn(&format!("/destinations/{index}"), message);
            }
        }
    }
}

/// Returns whether a text has the form of a Slack token:
/// <https://docs.slack.dev/authentication/tokens>.
fn is_token(text: &str) -> bool {
    ["xoxb-", "xoxp-", "xoxe", "xapp-"].iter().any(|start| text.starts_with(start))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, Problem, parse};

    const SOUND: &str = "\
server: {}
slack:
  apps:
    - name: main
      signing_secret: {env: SECRET}
      bot_token: {env: TOKEN}
      bots: [A0123456789]
      channels: [C0123456789]
match: {}
catch_up: {}
store: {sqlite: {}}
retention: {}
delivery: {}
destinations:
  - name: soar
    preset: webhook
    url: {env: URL}
    retry: {}
    headers: {}
    when: {}
";

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "SECRET" | "AGAIN" => "0123456789abcdef0123456789abcdef",
            "OTHER" => "fedcba9876543210fedcba9876543210",
            "TOKEN" => "xoxb-1-2-abc",
            "APP_TOKEN" => "xapp-1-2-abc",
            "SHORT" => "hunter2",
            "URL" => "https://soar.example.com/hook?key=k",
            "IN_CLEAR" => "http://soar.example.com/hook?key=hunter2",
            "HERE" => "http://127.0.0.1:8000/hook",
            "DATABASE" => "postgresql://relay:hunter2@db.example.com/relay",
            "SAFE_DATABASE" => "postgresql://relay:p@db.example.com/relay?sslmode=require",
            "LOCAL_DATABASE" => "postgresql://relay:p@localhost/relay",
            _ => return None,
        };
        Some(value.to_owned())
    }

    /// Problems and warnings of the sound file with some of its text changed.
    fn found(changes: &[(&str, &str)]) -> (Vec<Problem>, Vec<Problem>) {
        let change = |text: String, (from, to): &(&str, &str)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        };
        let text = changes.iter().fold(SOUND.to_owned(), change);
        match parse(&text, Path::new(""), &env) {
            Ok(Loaded { warnings, .. }) => (Vec::new(), warnings),
            Err(problems) => (problems, Vec::new()),
        }
    }

    fn names(list: &[Problem], key: &str, says: &str) -> bool {
        list.iter()
            .any(|one| one.path == key && one.position.is_some() && one.to_string().contains(says))
    }

    #[test]
    fn a_sound_file_gets_no_warning() {
        assert_eq!(found(&[]), (Vec::new(), Vec::new()));
        let here = [
            ("{env: URL}", "{env: HERE}"),
            ("{sqlite: {}}", "{postgres: {url: {env: LOCAL_DATABASE}}}"),
        ];
        assert_eq!(found(&here), (Vec::new(), Vec::new()));
        let safe = ("{sqlite: {}}", "{postgres: {url: {env: SAFE_DATABASE}}}");
        assert_eq!(found(&[safe]), (Vec::new(), Vec::new()));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of mistakes")]
    fn a_value_without_an_effect_is_an_error_at_its_line() {
        let (server, title) = ("server: {}", "match: {}");
        for (from, to, key, says) in [
            (
                server,
                "server: {listen: '0.0.0.0:80', ops_listen: '127.0.0.1:80'}",
                "server.ops_listen",
                "same address",
            ),
            (
                server,
                "server: {listen: '[::]:80', ops_listen: '127.0.0.1:80'}",
                "server.ops_listen",
                "same address",
            ),
            (server, "server: {idle_timeout: 0s}", "server.idle_timeout", "from 1s"),
            (server, "server: {drain_delay: 500d}", "server.drain_delay", "to 60s"),
            (
                "slack:",
                "slack:\n  api_url: https://slack.com",
                "slack.api_url",
                "https://slack.com/api",
            ),
            (
                "signing_secret: {env: SECRET}",
                "signing_secret: {env: TOKEN}",
                "slack.apps[0].signing_secret",
                "is a token",
            ),
            (
                "signing_secret: {env: SECRET}",
                "signing_secret: {env: $SECRET}",
                "slack.apps[0].signing_secret",
                "without a $",
            ),
            (
                "bot_token: {env: TOKEN}",
                "bot_token: {env: APP_TOKEN}",
                "slack.apps[0].bot_token",
                "xoxb-",
            ),
            ("[A0123456789]", "[Code Defender]", "slack.apps[0].bots[0]", "id of an app or a bot"),
            ("[A0123456789]", "[U0123456789]", "slack.apps[0].bots[0]", "id of an app or a bot"),
            ("[C0123456789]", "['']", "slack.apps[0].channels[0]", "neither the id nor the name"),
            ("bots:", "team: my-team\n      bots:", "slack.apps[0].team", "T0123456789"),
            (title, "match: {titles: []}", "match.titles", "at least one"),
            (title, "match: {titles: [' ']}", "match.titles[0]", "empty"),
            (title, "match: {titles: ['//']}", "match.titles[0]", "empty"),
            (title, "match: {fields: {script: ['']}}", "match.fields.script[0]", "empty"),
            ("catch_up: {}", "catch_up: {every: 0s}", "catch_up.every", "from 1s"),
            (
                "catch_up: {}",
                "catch_up: {first_lookback: 401d}",
                "catch_up.first_lookback",
                "from 0s",
            ),
            ("{sqlite: {}}", "{sqlite: {max_size: 1KiB}}", "store.sqlite.max_size", "2MiB"),
            ("{sqlite: {}}", "{sqlite: {path: ''}}", "store.sqlite.path", "path of a file"),
            ("{sqlite: {}}", "{sqlite: {path: ':memory:'}}", "store.sqlite.path", "path of a file"),
            ("{sqlite: {}}", "{sqlite: {path: /tmp}}", "store.sqlite.path", "is a folder"),
            ("retention: {}", "retention: {delivered: 0s}", "retention.delivered", "keeps nothing"),
            ("retention: {}", "retention: {dead: 0d}", "retention.dead", "keeps nothing"),
            ("retention: {}", "retention: {delivered: 500d}", "retention.delivered", "400d"),
            ("delivery: {}", "delivery: {lease: 0s}", "destinations[0].timeout", "delivery.lease"),
            ("match:", "presets_dir: nowhere\nmatch:", "presets_dir", "cannot be read"),
            (
                "preset: webhook",
                "preset: webhok",
                "destinations[0].preset",
                "did you mean `webhook`?",
            ),
            (
                "retry: {}",
                "retry: {max_age: 0s}",
                "destinations[0].retry.max_age",
                "before it is sent",
            ),
            ("retry: {}", "retry: {max_age: 999d}", "destinations[0].retry.max_age", "400d"),
            ("retry: {}", "timeout: 0s", "destinations[0].timeout", "from 1s"),
            ("retry: {}", "concurrency: 0", "destinations[0].concurrency", "from 1"),
            ("retry: {}", "rate_limit: 0/min", "destinations[0].rate_limit", "60/min"),
            ("retry: {}", "rate_limit: 10/h", "destinations[0].rate_limit", "at least 1/min"),
            (
                "headers: {}",
                "headers: {X-Team: a, x-team: b}",
                "destinations[0].headers.x-team",
                "twice",
            ),
            (
                "headers: {}",
                "headers: {Idempotency-Key: a}",
                "destinations[0]",
                "set by the relay itself",
            ),
            ("headers: {}", "params: {mode: x}", "destinations[0].params.mode", "unknown key"),
            ("when: {}", "when: {apps: []}", "destinations[0].when.apps", "is empty"),
            ("when: {}", "when: {channels: []}", "destinations[0].when.channels", "is empty"),
            (
                "when: {}",
                "when: {apps: [mian]}",
                "destinations[0].when.apps[0]",
                "did you mean `main`?",
            ),
            (
                "when: {}",
                "when: {min_severity: severe}",
                "destinations[0].when.min_severity",
                "critical",
            ),
        ] {
            let (problems, _) = found(&[(from, to)]);
            assert!(names(&problems, key, says), "{to}: {problems:#?}");
            assert!(problems.iter().all(|one| !one.to_string().contains("xoxb-1")), "{to}");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of risks")]
    fn a_risky_value_is_a_warning_at_its_line() {
        let (server, title, destination) = ("server: {}", "match: {}", "destinations:\n");
        let another = "destinations:\n  - {name: other, preset: webhook, url: {env: URL}}\n";
        for (from, to, key, says) in [
            (server, "server: {ops_listen: '0.0.0.0:9090'}", "server.ops_listen", "the API is off"),
            (server, "server: {ops_token: {env: SHORT}}", "server.ops_token", "24 characters"),
            (server, "server: {listen: '127.0.0.1:0'}", "server.listen", "port 0"),
            ("retention: {}", "retention: {dead: 500d}", "retention.dead", "400d"),
            (server, "server: {drain_delay: 30s}", "server.drain_delay", "Kubernetes"),
            (
                "slack:",
                "slack:\n  api_url: http://slack.internal/api",
                "slack.api_url",
                "clear text",
            ),
            (
                "bot_token: {env: TOKEN}",
                "previous_signing_secret: {env: AGAIN}",
                "slack.apps[0].previous_signing_secret",
                "the same as",
            ),
            ("bot_token: {env: TOKEN}\n", "\n", "slack.apps[0]", "no `bot_token`"),
            ("bot_token: {env: TOKEN}\n", "\n", "catch_up", "no effect"),
            ("bots: [A0123456789]\n", "bots: []\n", "slack.apps[0].bots", "webhook"),
            ("[A0123456789]", "[A0123456789, A0123456789]", "slack.apps[0].bots[1]", "twice"),
            ("[C0123456789]", "['#alerts', alerts]", "slack.apps[0].channels[1]", "twice"),
            (
                "slack:\n  apps:\n",
                "slack:\n  apps:\n    - {name: b, signing_secret: {env: OTHER},\n       \
                 channels: [C0123456789]}\n",
                "slack.apps[1].channels[0]",
                "two alerts",
            ),
            (title, "match: {titles: ['/.*/']}", "match.titles[0]", "every title"),
            (title, "match: {titles: ['/incident/i']}", "match.titles[0]", "(?i)"),
            (title, "match: {titles: [a, A]}", "match.titles[1]", "twice"),
            (title, "match: {fields: {risk: []}}", "match.fields.risk", "not read"),
            (
                title,
                "match: {fields: {risk: [Script]}}",
                "match.fields.risk[0]",
                "also a title of `script`",
            ),
            ("catch_up: {}", "catch_up: {every: 1s}", "catch_up.every", "rate limit"),
            (
                "catch_up: {}",
                "catch_up: {every: 24h, first_lookback: 1h}",
                "catch_up.first_lookback",
                "`every`",
            ),
            ("catch_up: {}", "catch_up: {overlap: 0s}", "catch_up.overlap", "`settle`"),
            ("{sqlite: {}}", "{sqlite: {max_size: 3MiB}}", "store.sqlite.max_size", "64MiB"),
            ("{sqlite: {}}", "{sqlite: {max_size: 100TiB}}", "store.sqlite.max_size", "1TiB"),
            (
                "{sqlite: {}}",
                "{postgres: {url: {env: DATABASE}}}",
                "store.postgres.url",
                "sslmode=require",
            ),
            (
                "{sqlite: {}}",
                "{postgres: {url: {env: SAFE_DATABASE}, allow_unsafe: true}}",
                "store.postgres.allow_unsafe",
                "may be lost",
            ),
            (
                "retention: {}",
                "retention: {delivered: 1s}",
                "retention.delivered",
                "less than a day",
            ),
            ("delivery: {}", "delivery: {lease: 10h}", "delivery.lease", "15m"),
            ("match:", "presets_dir: src\nmatch:", "presets_dir", "not contain presets"),
            ("{env: URL}", "{env: IN_CLEAR}", "destinations[0].url", "clear text"),
            ("retry: {}", "retry: {max_age: 1m}", "destinations[0].retry.max_age", "less than 1h"),
            ("retry: {}", "rate_limit: 90/h", "destinations[0].rate_limit", "1/min"),
            (
                "headers: {}",
                "headers: {Authorization: Bearer x}",
                "destinations[0].headers.Authorization",
                "secret",
            ),
            ("when: {}", "when: {test: only}", "destinations[0].when.test", "real incidents"),
            ("when: {}", "when: {apps: [main, main]}", "destinations[0].when.apps[1]", "twice"),
            (
                "when: {}",
                "when: {channels: [C0999999999]}",
                "destinations[0].when.channels[0]",
                "not in the `channels`",
            ),
            (destination, another, "destinations[1]", "same URL as `other`"),
        ] {
            let (problems, warnings) = found(&[(from, to)]);
            assert_eq!(problems, [], "{to}");
            assert!(names(&warnings, key, says), "{to}: {warnings:#?}");
            assert!(warnings.iter().all(|one| !one.to_string().contains("hunter2")), "{to}");
        }
    }
}
