//! Files with mistakes, and the messages about them.

use std::path::Path;

use proptest::prelude::*;

use super::{load::*, problem::*, *};
use crate::destination::{preset::Preset, reference};

const MINIMAL: &str = "\
slack:
  apps:
    - name: main
      signing_secret: {env: SECRET}
destinations:
  - name: soar
    preset: webhook
    url: {env: URL}
";

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" | "SLACK_SIGNING_SECRET" => Some("8f742231b10e".to_owned()),
        "URL" | "SECOPS_WEBHOOK_URL" => Some("https://soar.example.com/hook?key=k".to_owned()),
        "DATABASE_URL" | "DATABASE_DIRECT_URL" => {
            Some("postgresql://relay:hunter2@a:5432,b:5433/relay?sslmode=require".to_owned())
        }
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn check(text: &str) -> Vec<String> {
    match parse(text, Path::new(""), &env) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

fn only(text: &str) -> String {
    let problems = check(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.into_iter().next().unwrap()
}

#[test]
fn the_minimal_file_and_the_example_are_valid() {
    assert_eq!(check(MINIMAL), [""; 0]);
    assert_eq!(check(EXAMPLE), [""; 0]);
}

#[test]
fn every_commented_line_of_the_example_is_a_key_that_exists() {
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| {
            let text = line.trim_start();
            let is_key = text.strip_prefix("# ").is_some_and(|rest| {
                let rest = rest.trim_start();
                let word = rest.split(':').next().unwrap_or_default();
                rest.contains(':')
                    && !word.is_empty()
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            });
            let line = if is_key { line.replacen("# ", "", 1) } else { line.to_owned() };
            line + "\n"
        })
        .collect();
    let (value, positions) = tree::read(&uncommented).unwrap();
    assert_eq!(schema::validate(&value, &positions), []);
    for key in ["/server/ops_token", "/match/fields/host", "/catch_up/settle", "/delivery/lease"] {
        assert!(positions.has(key), "{key} is not in the example");
    }
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_the_file() {
    let text = "\
slack:
  apps:
    - name: main
      signing_secret: {env: SECRET}
      chanels: []
server: {idle_timeout: 10}
store: {sqlite: {max_size: large}}
destinations:
  - name: Soar
    preset: webhook
    url: https://soar.example.com
    concurrency: many
";
    let problems = check(text);
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let lines: Vec<&str> = problems.iter().map(|one| one.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["5", "6", "7", "9", "11", "12"]);
}

#[test]
fn a_misspelt_key_gets_a_suggestion() {
    let text = MINIMAL.replace("signing_secret", "signing_secrt");
    let problems = check(&text);
    assert!(problems.iter().any(|one| one.contains("did you mean `signing_secret`?")));
}

#[test]
fn a_duration_without_a_unit_is_refused() {
    let problem = only(&format!("{MINIMAL}    timeout: 15\n"));
    assert_eq!(
        problem,
        "9:5: destinations[0].timeout: a duration needs its unit \
         (write \"30s\", \"10m\" or \"72h\")"
    );
}

#[test]
fn two_destinations_with_the_same_name_are_refused() {
    let second = "  - name: soar\n    preset: webhook\n    url: {env: URL}\n";
    assert!(only(&format!("{MINIMAL}{second}")).contains("two destinations are named `soar`"));
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_shown() {
    let problem = only(&MINIMAL.replace("{env: SECRET}", "hunter2"));
    assert!(problem.contains("write {env: NAME} or {file: PATH}"), "{problem}");
    assert!(!problem.contains("hunter2"));
}

#[test]
fn a_missing_or_empty_secret_is_named() {
    let missing = only(&MINIMAL.replace("SECRET", "NOWHERE"));
    assert!(missing.contains("the environment variable NOWHERE is not set"), "{missing}");
    let empty = only(&MINIMAL.replace("SECRET", "EMPTY"));
    assert!(empty.contains("EMPTY is empty"), "{empty}");
    let file = only(&MINIMAL.replace("{env: SECRET}", "{file: /nowhere/at/all}"));
    assert!(file.contains("/nowhere/at/all"), "{file}");
}

#[test]
fn a_channel_name_needs_a_bot_token() {
    let text = MINIMAL.replace("{env: SECRET}", "{env: SECRET}\n      channels: [cd_alerts]");
    let problem = only(&text);
    assert!(problem.starts_with("5:18: slack.apps[0].channels[0]"), "{problem}");
    let named = text.replace(
        "channels:",
        "bot_token: {env: SECRET}\n      bots: [A0123456789]\n      channels:",
    );
    let loaded = parse(&named, Path::new(""), &env).unwrap();
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
    let app = &loaded.config.apps[0];
    assert_eq!((app.channels.len(), app.channel_names.as_slice()), (0, &["cd_alerts".into()][..]));
}

#[test]
fn ids_and_names_of_channels_are_told_apart() {
    let with = |channels: &str| {
        let more = format!(
            "{{env: SECRET}}\n      bot_token: {{env: SECRET}}\n      channels: {channels}"
        );
        MINIMAL.replace("{env: SECRET}", &more)
    };
    let good = with("[C0123456789, '#cd_alerts', G0123456789, größe-1]");
    let loaded = parse(&good, Path::new(""), &env).unwrap();
    let app = &loaded.config.apps[0];
    assert_eq!((app.channels.len(), app.channel_names.len()), (2, 2));
    for wrong in ["CD_Alerts", "cd alerts", "''", "C012"] {
        let problem = only(&with(&format!("[{wrong}]")));
        assert!(problem.contains("neither the id nor the name"), "{problem}");
    }
}

#[test]
fn the_web_api_must_be_a_url_that_may_be_called() {
    for (url, word) in [
        ("slack", "not a valid URL"),
        ("ftp://slack.com", "https://"),
        ("http://169.254.169.254/", "never contacted"),
    ] {
        let text = MINIMAL.replace("slack:\n", &format!("slack:\n  api_url: {url}\n"));
        let problem = only(&text);
        assert!(problem.contains(word), "{problem}");
    }
}

#[test]
fn unknown_presets_bad_titles_and_short_leases_are_found_together() {
    let text = MINIMAL.replace("preset: webhook", "preset: siem")
        + "match: {titles: [\"/(/\"]}\ndelivery: {lease: 40s}\n";
    let problems = check(&text);
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn syntax_errors_do_not_mention_the_parsers_options() {
    let twice = only(&format!("{MINIMAL}destinations: []\n"));
    assert_eq!(
        twice,
        "9:1: duplicate mapping key: destinations (write each key once: merge the two)"
    );
    let nonsense = only(&format!("{MINIMAL}NONSENSE\n"));
    assert!(nonsense.starts_with("9:1: ") && !nonsense.contains(" at line "), "{nonsense}");
    let unknown = only(&MINIMAL.replace("preset: webhook", "preset: webhook\n    ta: x"));
    assert!(!unknown.contains("did you mean") && unknown.contains("known here: "), "{unknown}");
}

#[test]
fn an_empty_file_and_a_list_are_refused() {
    assert_eq!(check("").len(), 1);
    assert!(only("- a\n").contains("must be a section with keys, not a list"));
}

#[test]
fn missing_tokens_and_short_intervals_are_warnings() {
    let text = format!("{MINIMAL}catch_up: {{every: 30s}}\n");
    let loaded = parse(&text, Path::new(""), &env).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    for expected in ["no `bot_token`", "less than 60s", "no app has a `bot_token`"] {
        assert!(warnings.iter().any(|one| one.contains(expected)), "{expected}: {warnings:#?}");
    }
}

#[test]
fn a_tiny_store_is_an_error_and_a_small_one_a_warning() {
    let with = |size: &str| {
        let text = format!("{MINIMAL}store: {{sqlite: {{max_size: {size}}}}}\n");
        parse(&text, Path::new(""), &env).map(|loaded| {
            let about = |one: &Problem| one.path.contains("max_size");
            loaded.warnings.iter().filter(|one| about(one)).count()
        })
    };
    for (size, warnings) in [("2MiB", 1), ("65535KiB", 1), ("64MiB", 0), ("1GiB", 0)] {
        assert_eq!(with(size).unwrap(), warnings, "{size}");
    }
    for size in ["0B", "64KiB", "2097151B"] {
        let problems = with(size).unwrap_err();
        assert_eq!(problems.len(), 1, "{size}");
        assert!(problems[0].to_string().contains("less than 2MiB"), "{size}");
    }
}

#[test]
fn relative_paths_are_relative_to_the_file() {
    let loaded = parse(MINIMAL, Path::new("/etc/relay"), &env).unwrap();
    assert_eq!(loaded.config.store.path, Path::new("/etc/relay/relay.db"));
}

#[test]
fn a_database_replaces_the_file() {
    let text = format!("{MINIMAL}store: {{postgres: {{url: {{env: DATABASE_URL}}}}}}\n");
    let store = parse(&text, Path::new(""), &env).unwrap().config.store;
    assert_eq!(store.postgres.unwrap().max_connections, 10);
    let both = text.replace("{postgres", "{sqlite: {path: a.db}, postgres");
    assert!(only(&both).contains("choose `sqlite` or `postgres`"));
}

#[test]
fn stores_are_equal_if_their_settings_are() {
    let store = |more: &str| {
        let url = "url: {env: DATABASE_URL}";
        let text = format!("{MINIMAL}store: {{postgres: {{{url}{more}}}}}\n");
        parse(&text, Path::new(""), &env).unwrap().config.store
    };
    assert_eq!(store(""), store(", max_connections: 10"));
    assert_ne!(store(""), store(", max_connections: 11"));
    assert_ne!(store(""), store(", listen_url: {env: DATABASE_DIRECT_URL}"));
}

#[test]
fn an_invalid_database_url_is_refused_and_not_shown() {
    for (name, value) in [("URL", "an https URL"), ("SECRET", "a word")] {
        let text = format!("{MINIMAL}store: {{postgres: {{url: {{env: {name}}}}}}}\n");
        let problem = only(&text);
        assert!(problem.contains("not a database URL"), "{value}: {problem}");
        assert!(!problem.contains("8f742231b10e") && !problem.contains("key=k"), "{problem}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "[ -~\n\t:{}\\[\\]&*!|>'\"]{0,200}") {
        check(&text);
    }
}

#[test]
fn an_invalid_value_does_not_hide_other_problems() {
    let text = "server: {listen: 'localhost:8080', ops_listen: '127.0.0.1:99999', drain: 5s}\n\
                slack:\n  apps:\n    - {name: Main, signing_secret: {env: NOWHERE}}\n    \
                - {name: b, signing_secret: plain, bot_token: {env: NOWHERE}}\n\
                match: {titles: [5, '/(/']}\n\
                destinations:\n  - {name: soar, preset: siem, timeout: 15}\n  \
                - {name: soar, preset: webhook, url: {env: NOWHERE}, rate_limit: 30/h}\n  - 5\n";
    let problems = parse(text, Path::new(""), &env).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let expected = [
        "server.listen",
        "server.ops_listen",
        "server.drain",
        "slack.apps[0].name",
        "slack.apps[0].signing_secret",
        "slack.apps[1].signing_secret",
        "slack.apps[1].bot_token",
        "match.titles[0]",
        "match.titles[1]",
        "destinations[0].preset",
        "destinations[0].timeout",
        "destinations[1].name",
        "destinations[1].url",
        "destinations[1].rate_limit",
        "destinations[2]",
    ];
    assert_eq!(places, expected, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.position.is_some()));
}

#[test]
fn optional_secrets_in_the_file_are_refused_and_not_shown() {
    for place in ["previous_signing_secret", "bot_token"] {
        let more = format!("{{env: SECRET}}\n      {place}: hunter2");
        let problem = only(&MINIMAL.replace("{env: SECRET}", &more));
        assert!(problem.contains("write {env: NAME} or {file: PATH}"), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    let problem = only(&format!("{MINIMAL}    signing_secret: hunter2\n"));
    assert!(problem.contains("write {env: NAME}") && !problem.contains("hunter2"), "{problem}");
    let problem = only(&format!("{MINIMAL}    rate_limit: 60\n"));
    assert!(problem.contains("a rate needs its unit"), "{problem}");
    let problem = only(&format!("{MINIMAL}    when: {{min_severity: huge}}\n"));
    assert!(problem.contains("must be one of") && problem.contains("\"critical\""), "{problem}");
}

#[test]
fn a_destination_for_an_app_that_does_not_exist_is_refused() {
    let problem = only(&format!("{MINIMAL}    when: {{apps: [mian]}}\n"));
    assert!(problem.contains("no app is named `mian`"), "{problem}");
    assert!(problem.contains("did you mean `main`?"), "{problem}");
}

fn with_preset(preset: &str, rest: &str) -> String {
    MINIMAL.replace("preset: webhook", &format!("preset: {preset}")) + rest
}

#[test]
fn an_invalid_parameter_is_reported_once_with_its_position() {
    let wrong = "    params:\n      enviroment: x\n      id_scheme: micro\n      values: 5\n";
    assert_eq!(
        check(&with_preset("google-secops-webhook", wrong)),
        [
            "10:7: destinations[0].params.enviroment: unknown key (did you mean `environment`?)",
            "11:7: destinations[0].params.id_scheme: must be one of \"micros\", \"article\"",
            "12:7: destinations[0].params.values: must be a text, not a number",
        ]
    );
    let wrong = "    params:\n      api_key: hunter2\n      customer_id: many\n";
    assert_eq!(
        check(&with_preset("dfir-iris", wrong)),
        [
            "10:7: destinations[0].params.api_key: must be a reference to a secret \
             (write {env: NAME} or {file: PATH})",
            "11:7: destinations[0].params.customer_id: must be a whole number, not a text",
        ]
    );
    assert_eq!(
        only(&with_preset("pagerduty", "    params: 5\n")),
        "9:5: destinations[0].params: must be a section with keys, not a number"
    );
}

#[test]
fn a_missing_parameter_is_reported_once_with_its_description() {
    for rest in ["", "    params: {}\n", "    params: {token: {env: SECRET}, email: a@b.c}\n"] {
        let problems = check(&with_preset("jira", rest));
        let expected = if rest.contains("email") { 1 } else { 3 };
        assert_eq!(problems.len(), expected, "{problems:#?}");
        let last = problems.iter().find(|one| one.contains("params.project")).unwrap();
        assert!(last.ends_with("`project` is missing: The project's key, such as SEC."), "{last}");
    }
    let nowhere = "    params: {routing_key: {env: NOWHERE}}\n";
    assert!(only(&with_preset("pagerduty", nowhere)).contains("NOWHERE is not set"));
}

#[test]
fn a_parameter_may_come_from_a_file_or_the_environment() {
    let text = "    params: {values: {env: VALUES}, environment: {env: SECRET}}\n";
    let problem = only(&with_preset("google-secops-webhook", text));
    assert!(problem.contains("VALUES is not set"), "{problem}");
}

#[test]
fn the_schema_knows_the_parameters_of_every_preset() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for name in Preset::builtin_names() {
        let preset = Preset::builtin(name).unwrap();
        let sample = format!("{}\n", reference::sample(&preset));
        let file = MINIMAL.split("  - name: soar").next().unwrap().to_owned() + &sample;
        let (mut value, _) = tree::read(&file).unwrap();
        assert!(schema.is_valid(&value), "{name}");
        let destination = value.pointer_mut("/destinations/0").unwrap().as_object_mut().unwrap();
        let params = destination.entry("params").or_insert_with(|| serde_json::json!({}));
        params["nobody-knows-this"] = 1.into();
        assert!(!schema.is_valid(&value), "{name}");
    }
    let (own, _) = tree::read(&with_preset("my-soar", "    params: {anything: 1}\n")).unwrap();
    assert!(schema.is_valid(&own));
}

fn two_apps(first: &str, second: &str) -> String {
    let app = |name: &str, more: &str| {
        format!("    - {{name: {name}, signing_secret: {{env: SECRET}}{more}}}\n")
    };
    let rest = MINIMAL.split("destinations").nth(1).unwrap();
    format!("slack:\n  apps:\n{}{}destinations{rest}", app("a", first), app("b", second))
}

#[test]
fn apps_that_share_a_signing_secret_need_a_team_each() {
    assert_eq!(check(&two_apps(", team: T0000001", ", team: T0000002")), [""; 0]);
    let problems = check(&two_apps("", ""));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("3:7: slack.apps[0].team: `team` is missing"));
    assert!(problems[1].starts_with("4:7: slack.apps[1].team: `team` is missing"));
    let problem = only(&two_apps(", team: T0000001", ""));
    assert!(problem.contains("apps[1].team: `team` is missing") && problem.contains("`a`"));
    let problems = check(&two_apps(", team: T0000001", ", team: T0000001"));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("the same signing secret and the same `team`"));
    let problem = only(&two_apps(", team: T0000001", ", team: somewhere"));
    assert!(problem.contains("slack.apps[1].team"), "{problem}");
}

#[test]
fn more_distinct_signing_secrets_than_the_short_path_tries_are_a_warning() {
    let apps = |count| {
        let app = |n| format!("    - {{name: app-{n}, signing_secret: {{env: S{n}}}}}\n");
        let apps: String = (0..count).map(app).collect();
        format!("slack:\n  apps:\n{apps}destinations: []\n")
    };
    let env = |name: &str| Some(format!("value-of-{name}"));
    let warned = |count| {
        let loaded = parse(&apps(count), Path::new(""), &env).unwrap();
        loaded.warnings.iter().any(|warning| warning.message.contains("/slack/events/NAME"))
    };
    assert!(!warned(16) && warned(17));
}

#[test]
fn secrets_are_trimmed_and_refused_if_they_contain_invalid_characters() {
    let file = "\
server: {ops_token: {env: SURROUNDED}}
slack:
  apps:
    - {name: main, signing_secret: {env: SURROUNDED}, bot_token: {env: SURROUNDED}}
destinations:
  - name: pager
    preset: pagerduty
    params: {routing_key: {env: SURROUNDED}}
  - name: soar
    preset: webhook
    url: {env: SURROUNDED_URL}
    headers: {Authorization: {env: SURROUNDED}}
    signing_secret: {env: SURROUNDED}
  - {name: inside, preset: feed, params: {feed_token: {env: SURROUNDED}}}
  - name: now
    preset: servicenow-em-event
    url: {env: SURROUNDED_URL}
    params: {user: soc, password: {env: SURROUNDED}}
";
    let with = |value: &str| {
        let value = value.to_owned();
        move |name: &str| match name {
            "SURROUNDED_URL" => Some("\u{feff} https://soar.example/hook\r\n".to_owned()),
            "SURROUNDED" => Some(value.clone()),
            _ => None,
        }
    };
    let good = with("\u{feff}0123456789abcdef0123456789abcdef\r\n");
    let loaded = parse(file, Path::new(""), &good).unwrap();
    assert_eq!(loaded.config.secrets.len(), 10);
    for secret in &loaded.config.secrets {
        let value = secret.reveal();
        assert!(value.starts_with("https://soar") || value.len() == 32, "{secret:?}");
        assert_eq!(value.trim(), value.as_str(), "{secret:?}");
    }
    let keys = |value: &str| {
        let problems = parse(file, Path::new(""), &with(value)).unwrap_err();
        for problem in &problems {
            assert!(problem.message.contains("the secret SURROUNDED has"), "{problem}");
            assert!(!problem.to_string().contains("hunter"), "{problem}");
        }
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    let all = [
        "server.ops_token",
        "slack.apps[0].signing_secret",
        "slack.apps[0].bot_token",
        "destinations[0].params.routing_key",
        "destinations[1].headers.Authorization",
        "destinations[1].signing_secret",
        "destinations[2].params.feed_token",
        "destinations[3].params.password",
    ];
    for value in ["hunter\n2hunter", "'hunter2'", "hunter\u{1b}", "hunter\u{200b}2"] {
        assert_eq!(keys(value), all, "{value:?}");
    }
    let words = all.iter().filter(|key| !key.ends_with("Authorization"));
    let words: Vec<_> = words.filter(|key| !key.ends_with("password")).collect();
    assert_eq!(keys("hunter 2").iter().collect::<Vec<_>>(), words, "a password may have spaces");
}

#[test]
fn a_file_that_is_not_utf_8_is_a_problem_at_its_first_bad_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.yaml");
    let (before, after) = MINIMAL.split_once("ar\n").unwrap();
    std::fs::write(&path, [before.as_bytes(), b"\xe9r\n", after.as_bytes()].concat()).unwrap();
    let problems = load(&path, &env).unwrap_err();
    assert_eq!(problems.list.len(), 1);
    assert_eq!(problems.list[0].position, Some((6, 13)));
    assert!(problems.to_string().contains("relay.yaml:6:13: is not UTF-8 text: byte 0xE9"));
    assert!(problems.to_string().contains("save the file as UTF-8"), "{problems}");
    std::fs::write(&path, format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"))).unwrap();
    assert!(load(&path, &env).is_ok());
}

#[test]
fn the_web_apis_proxy_and_certificates_are_checked() {
    let slack = |more: &str| MINIMAL.replace("slack:\n", &format!("slack:\n{more}"));
    for (yaml, key) in [
        ("  proxy: socks5://u:hunter2@proxy:1080\n", "slack.proxy"),
        ("  ca_file: nowhere.pem\n", "slack.ca_file"),
    ] {
        let problem = only(&slack(yaml));
        assert!(problem.contains(key) && !problem.contains("hunter2"), "{problem}");
    }
    let app = |more: &str| MINIMAL.replace("{env: SECRET}\n", &format!("{{env: SECRET}}\n{more}"));
    assert!(only(&app("      proxy: nonsense\n")).contains("slack.apps[0].proxy"));
    assert!(only(&app("      ca_file: nowhere.pem\n")).contains("slack.apps[0].ca_file"));
}
