//! What a file may say and nobody means: values that can do nothing are errors, and those that may
//! lose or expose something are warnings.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use url::{Host, Url};

use super::{
    Destination,
    file::{self, File, Test},
    resolve::{DAY, Resolver},
};
use crate::{code_defender::settings::TitlePattern, secret::Secret, store::IDENTITY_KEPT};

/// A process has this long for a graceful end: half of what Kubernetes grants by default.
const MAX_USUAL_DRAIN: Duration = Duration::from_secs(10);

/// A token that guards the API should be longer than one that can be guessed.
const MIN_TOKEN_CHARACTERS: usize = 24;

/// An outage of a destination easily lasts this long.
const MIN_USUAL_AGE: Duration = Duration::from_secs(3600);

/// With a database, what a relay held when it died waits this long.
const MAX_USUAL_LEASE: Duration = Duration::from_secs(900);

/// Larger than the disks that a store lies on.
const MAX_USUAL_SIZE: u64 = 1 << 40;

impl Resolver<'_> {
    /// Looks through everything that is checked without its secrets.
    pub(super) fn sense(&mut self, file: &File) {
        self.listeners(&file.server);
        self.slack_apps(&file.slack.apps);
        self.titles(&file.matching.titles);
        self.field_titles(&file.matching.fields);
        self.history(file);
        self.sqlite(&file.store.sqlite);
        self.kept(&file.retention);
        if file.delivery.lease.0 > MAX_USUAL_LEASE {
            let message = "more than 15m: with a database, what a relay held when it died waits \
                           that long";
            self.warn("/delivery/lease", message);
        }
        if let Some(dir) = &file.presets_dir {
            self.presets(&self.place.dir.join(dir));
        }
        for (index, destination) in file.destinations.iter().enumerate() {
            self.one_destination(&format!("/destinations/{index}"), destination, file);
        }
        let takes_real = |one: &file::Destination| !matches!(one.when.test, Test::Only);
        if !file.destinations.is_empty() && !file.destinations.iter().any(takes_real) {
            let message = "every destination takes tests only: real incidents go nowhere";
            self.warn("/destinations/0/when/test", message);
        }
    }

    fn listeners(&mut self, server: &file::Server) {
        for (key, address) in [("listen", server.listen), ("ops_listen", server.ops_listen)] {
            if address.port() == 0 {
                let message = "port 0: each start listens on another port";
                self.warn(&format!("/server/{key}"), message);
            }
        }
        if !server.ops_listen.ip().is_loopback() && server.ops_token.is_none() {
            self.warn_with(
                "/server/ops_listen",
                "is not a loopback address and there is no `ops_token`: the API is off",
                "set `ops_token`, or listen on 127.0.0.1",
            );
        }
        if server.drain_delay.0 > MAX_USUAL_DRAIN {
            let message = "more than 10s: with what follows, a stop takes longer than the 30s \
                           that Kubernetes grants by default";
            self.warn_with("/server/drain_delay", message, "grant this delay and 25s more");
        }
    }

    fn slack_apps(&mut self, apps: &[file::App]) {
        let mut channels = BTreeMap::new();
        for (index, app) in apps.iter().enumerate() {
            let at = format!("/slack/apps/{index}");
            self.twice(&format!("{at}/channels"), &app.channels, |text| {
                text.trim_start_matches('#').to_owned()
            });
            for (place, channel) in app.channels.iter().enumerate() {
                let first = channels.entry(channel.as_str()).or_insert(app.name.as_str());
                if *first != app.name {
                    let message = format!(
                        "`{channel}` is a channel of the app `{first}` too: each incident there \
                         becomes two alerts"
                    );
                    self.warn(&format!("{at}/channels/{place}"), message);
                }
            }
            self.bots(&format!("{at}/bots"), &app.bots);
        }
    }

    fn bots(&mut self, at: &str, bots: &[String]) {
        if bots.is_empty() {
            self.warn_with(
                at,
                "empty: whatever can post in the channel (a webhook, a workflow, an app of a \
                 Slack Connect partner) can make an alert",
                "list the `app_id` or `bot_id` that posts incidents; `doctor` names those seen",
            );
        }
        self.twice(at, bots, str::to_owned);
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

    fn titles(&mut self, titles: &[String]) {
        self.twice("/match/titles", titles, str::to_lowercase);
        for (index, title) in titles.iter().enumerate() {
            let at = format!("/match/titles/{index}");
            let title = title.trim();
            let rest = title.strip_prefix('/').filter(|rest| !rest.is_empty());
            if rest.is_some_and(|rest| !rest.ends_with('/')) {
                let message = "begins like a regular expression and is compared as a text, since \
                               it does not end in /";
                self.warn_with(&at, message, "write /expression/; (?i) in it ignores case");
            } else if TitlePattern::parse(title).is_ok_and(|pattern| pattern.matches("")) {
                let message = "matches every title: any attachment of a bot becomes an alert";
                self.warn(&at, message);
            }
        }
    }

    fn field_titles(&mut self, fields: &file::Fields) {
        let mut known = BTreeMap::new();
        let lists = [("script", &fields.script), ("risk", &fields.risk), ("host", &fields.host)];
        for (name, titles) in lists {
            let at = format!("/match/fields/{name}");
            if titles.is_empty() {
                self.warn(&at, "empty: this field is not read from any incident");
            }
            self.twice(&at, titles, str::to_lowercase);
            for (index, title) in titles.iter().enumerate() {
                let at = format!("{at}/{index}");
                let first = known.entry(title.trim().to_lowercase()).or_insert(name);
                if title.trim().is_empty() {
                    self.problem(&at, "a title must not be empty");
                } else if *first != name {
                    let message = format!("`{title}` is a title of `{first}` too");
                    self.warn(&at, message);
                }
            }
        }
    }

    fn history(&mut self, file: &File) {
        let has_key = |key: &str| self.place.positions.has(key);
        let is_written = has_key("/catch_up");
        if is_written && file.slack.apps.iter().all(|app| app.bot_token.is_none()) {
            self.warn("/catch_up", "has no effect: no app has a `bot_token`");
        }
        let file::CatchUp { every, overlap, settle, first_lookback } = &file.catch_up;
        if overlap.0 < settle.0 {
            let message = "is less than `settle`: a message that Slack shows late may be missed";
            self.warn("/catch_up/overlap", message);
        }
        if !first_lookback.0.is_zero() && first_lookback.0 < every.0 {
            let message = "is less than `every`: what was posted shortly before the first start \
                           is missed";
            self.warn("/catch_up/first_lookback", message);
        }
    }

    fn sqlite(&mut self, sqlite: &file::Sqlite) {
        const PATH: &str = "/store/sqlite/path";
        let path = &sqlite.path;
        let text = path.to_string_lossy();
        if text.is_empty() || text == ":memory:" || text.starts_with("file:") {
            let hint = "write a path such as /var/lib/slack-soar-relay/relay.db";
            self.problem_with(PATH, "is not the path of a file".to_owned(), hint);
        } else if self.place.dir.join(path).is_dir() {
            let hint = "name a file in it, such as relay.db";
            self.problem_with(PATH, "is a folder".to_owned(), hint);
        }
        if sqlite.max_size.0 > MAX_USUAL_SIZE {
            let message = "more than 1TiB: the disk is full before, and alerts are refused";
            self.warn("/store/sqlite/max_size", message);
        }
    }

    fn kept(&mut self, retention: &file::Retention) {
        for (key, span) in [("delivered", retention.delivered), ("dead", retention.dead)] {
            let at = format!("/retention/{key}");
            if span.0.is_zero() {
                let message = "0 keeps nothing: nobody could look at an alert or retry it";
                self.problem_with(&at, message.to_owned(), "write \"30d\", and 1h or more");
            } else if span.0 > IDENTITY_KEPT {
                let message = "more than 400d: only so long an old message is known again";
                if key == "delivered" {
                    self.problem(&at, message);
                } else {
                    self.warn(&at, message);
                }
            } else if span.0 < Duration::from_secs(DAY) {
                self.warn(&at, "less than a day: alerts are gone before anybody looks at them");
            }
        }
    }

    fn presets(&mut self, dir: &Path) {
        const AT: &str = "/presets_dir";
        let Ok(entries) = fs::read_dir(dir) else {
            let message = format!("there is no folder {} that can be read", dir.display());
            let hint = "relative paths are relative to the configuration file";
            return self.problem_with(AT, message, hint);
        };
        let is_preset = |path: &Path| path.extension().is_some_and(|end| end == "yaml");
        if !entries.flatten().any(|entry| is_preset(&entry.path())) {
            self.warn(AT, "has no preset: none of its files ends in .yaml");
        }
    }

    fn one_destination(&mut self, at: &str, destination: &file::Destination, file: &File) {
        let max_age = destination.retry.max_age.0;
        let age_at = format!("{at}/retry/max_age");
        if max_age.is_zero() {
            let message = "0 gives every alert up before it is sent";
            self.problem_with(&age_at, message.to_owned(), "write \"72h\"");
        } else if max_age > IDENTITY_KEPT {
            self.problem(&age_at, "must be 400d at most");
        } else if max_age < MIN_USUAL_AGE {
            let message = "less than 1h: an outage of that length makes alerts dead";
            self.warn(&age_at, message);
        }
        if let Some(rate) = destination.rate_limit.filter(|rate| rate.is_rounded) {
            let message = format!("is kept as {}/min, since a minute is counted", rate.per_minute);
            self.warn(&format!("{at}/rate_limit"), message);
        }
        let mut headers = BTreeSet::new();
        for name in destination.headers.keys() {
            if !headers.insert(name.to_ascii_lowercase()) {
                let at = format!("{at}/headers/{}", super::tree::step(name));
                self.problem(&at, "stands here twice: the case of a header does not matter");
            }
        }
        self.condition(&format!("{at}/when"), &destination.when, &file.slack.apps);
    }

    /// A condition that no alert can meet.
    fn condition(&mut self, at: &str, when: &file::When, apps: &[file::App]) {
        for (key, list) in [("apps", &when.apps), ("channels", &when.channels)] {
            let at = format!("{at}/{key}");
            if list.is_empty() && self.place.positions.has(&at) {
                let hint = format!("leave `{key}` out to have the alerts of all");
                self.problem_with(&at, "names none".to_owned(), &hint);
            }
            self.twice(&at, list, str::to_owned);
        }
        if !self.place.spoilt.has("/slack") && !self.place.spoilt.has_within("/slack/apps") {
            self.watched(&format!("{at}/channels"), when, apps);
        }
    }

    /// Channels that no app watches.
    fn watched(&mut self, at: &str, when: &file::When, apps: &[file::App]) {
        let is_meant = |app: &&file::App| when.apps.is_empty() || when.apps.contains(&app.name);
        let meant: Vec<_> = apps.iter().filter(is_meant).collect();
        // A name may stand for any id.
        let is_open = |app: &&file::App| {
            app.channels.is_empty()
                || !app.channels.iter().all(|id| super::slack::is_channel_id(id))
        };
        if meant.is_empty() || meant.iter().any(is_open) {
            return;
        }
        let is_watched = |id: &String| meant.iter().any(|app| app.channels.contains(id));
        for (index, id) in when.channels.iter().enumerate().filter(|(_, id)| !is_watched(id)) {
            // Not an error: it may be a later id of a channel that is listed by an earlier one.
            let message = format!(
                "`{id}` is not in the `channels` of an app that is meant here: unless it is \
                 another id of one that is, no alert comes from it"
            );
            self.warn(&format!("{at}/{index}"), message);
        }
    }

    /// Warns of entries that a list has twice.
    fn twice(&mut self, at: &str, list: &[String], same: impl Fn(&str) -> String) {
        let mut seen = BTreeSet::new();
        for (index, text) in list.iter().enumerate() {
            if !seen.insert(same(text.trim())) {
                self.warn(&format!("{at}/{index}"), format!("`{text}` stands here twice"));
            }
        }
    }

    /// Warns of a token of the API that can be guessed.
    pub(super) fn ops_token(&mut self, token: &Secret) {
        if token.reveal().chars().count() < MIN_TOKEN_CHARACTERS {
            let message = format!("has less than {MIN_TOKEN_CHARACTERS} characters");
            self.warn_with("/server/ops_token", message, "make one with: openssl rand -hex 24");
        }
    }

    /// Refuses what is another of Slack's secrets, and warns of one that is there twice.
    pub(super) fn slack_secrets(
        &mut self,
        at: &str,
        current: Option<&Secret>,
        previous: Option<&Secret>,
        bot_token: Option<&Secret>,
    ) {
        for (key, secret) in [("signing_secret", current), ("previous_signing_secret", previous)] {
            if secret.is_some_and(|secret| is_token(&secret.reveal())) {
                let message = "is a token and not a signing secret: every push would be refused";
                let hint = "Basic Information, App Credentials, Signing Secret, on the app's page";
                self.problem_with(&format!("{at}/{key}"), message.to_owned(), hint);
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
            let hint = "OAuth & Permissions, Bot User OAuth Token (xoxb-...), on the app's page";
            self.problem_with(&format!("{at}/bot_token"), message.to_owned(), hint);
        }
    }

    /// Warns of a destination that would send alerts and keys in clear.
    pub(super) fn in_clear(&mut self, at: &str, url: &str, what: &str) {
        let url = Url::parse(url).ok();
        if url.is_some_and(|url| url.scheme() == "http" && !is_here(&url)) {
            let message = format!("http:// to another host: {what} cross the network in clear");
            self.warn_with(at, message, "use https://");
        }
    }

    /// Warns of a database that is asked without TLS, or may be: the driver falls back to it.
    pub(super) fn database_in_clear(&mut self, at: &str, url: &str) {
        let is_safe = ["sslmode=require", "sslmode=verify"].iter().any(|mode| url.contains(mode));
        let host = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        let is_local = ["localhost", "127.", "[::1]", "%2F", "%2f", "/"]
            .iter()
            .any(|start| host.starts_with(start) || url.contains(&format!("host={start}")));
        if !is_safe && !is_local {
            let message = "without sslmode=require: the password and alerts may cross the network \
                           in clear";
            self.warn_with(at, message, "add ?sslmode=require");
        }
    }

    /// Warns of destinations that would make two cases of each alert.
    pub(super) fn same_receivers(&mut self, resolved: &[(usize, Destination)]) {
        let text = |secret: &Secret| secret.reveal().trim().to_owned();
        let key = |one: &Destination| {
            let http = &one.http;
            let secrets: Vec<_> =
                http.secrets.iter().map(|(name, secret)| (name.clone(), text(secret))).collect();
            (http.preset.name().to_owned(), text(&http.url), http.params.clone(), secrets)
        };
        for (place, (index, one)) in resolved.iter().enumerate() {
            let mut before = resolved.iter().take(place);
            if one.http.feed_token().is_none()
                && let Some((_, same)) = before.find(|(_, other)| key(other) == key(one))
            {
                let message = format!(
                    "sends to the same URL as `{}`: an alert that both take is sent there twice",
                    same.http.name
                );
                self.warn(&format!("/destinations/{index}"), message);
            }
        }
    }
}

/// The forms of Slack's tokens: <https://docs.slack.dev/authentication/tokens>.
fn is_token(text: &str) -> bool {
    ["xoxb-", "xoxp-", "xoxe", "xapp-"].iter().any(|start| text.starts_with(start))
}

fn is_here(url: &Url) -> bool {
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
    fn what_cannot_mean_anything_is_an_error_at_its_line() {
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
            ("match:", "presets_dir: nowhere\nmatch:", "presets_dir", "no folder"),
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
            ("when: {}", "when: {apps: []}", "destinations[0].when.apps", "names none"),
            ("when: {}", "when: {channels: []}", "destinations[0].when.channels", "names none"),
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
    fn what_is_risky_is_a_warning_at_its_line() {
        let (server, title, destination) = ("server: {}", "match: {}", "destinations:\n");
        let another = "destinations:\n  - {name: other, preset: webhook, url: {env: URL}}\n";
        for (from, to, key, says) in [
            (server, "server: {ops_listen: '0.0.0.0:9090'}", "server.ops_listen", "the API is off"),
            (server, "server: {ops_token: {env: SHORT}}", "server.ops_token", "24 characters"),
            (server, "server: {listen: '127.0.0.1:0'}", "server.listen", "port 0"),
            ("retention: {}", "retention: {dead: 500d}", "retention.dead", "400d"),
            (server, "server: {drain_delay: 30s}", "server.drain_delay", "Kubernetes"),
            ("slack:", "slack:\n  api_url: http://slack.internal/api", "slack.api_url", "in clear"),
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
            (title, "match: {fields: {risk: [Script]}}", "match.fields.risk[0]", "`script` too"),
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
            ("match:", "presets_dir: src\nmatch:", "presets_dir", "no preset"),
            ("{env: URL}", "{env: IN_CLEAR}", "destinations[0].url", "in clear"),
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
