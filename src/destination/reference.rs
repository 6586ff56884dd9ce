//! The page `docs/destinations.md`: the common settings, and what each preset says of itself.

use std::fmt::Write as _;

use crate::destination::preset::{Example, Meaning, Preset, Transport, params::ParamDoc};

/// Returns the whole page.
pub fn page() -> String {
    let presets: Vec<_> =
        Preset::builtin_names().filter_map(|name| Preset::load(name, None).ok()).collect();
    let mut page = include_str!("reference/head.md").to_owned();
    page.push_str("\n| preset | for | a repeated alert |\n| --- | --- | --- |\n");
    for preset in &presets {
        let (name, about) = (preset.name(), preset.about());
        let about = about.trim_end_matches('.');
        page.extend(["| [`", name, "`](#", name, ") | ", about, " | ", repeated(preset), " |\n"]);
    }
    for preset in &presets {
        section(&mut page, preset);
    }
    page
}

/// Returns a configured destination with every setting that the preset needs.
pub fn sample(preset: &Preset) -> String {
    let mut text = format!("  - name: soar\n    preset: {}\n", preset.name());
    match (preset.url(), preset.transport()) {
        (Some(_), _) => {}
        (None, Transport::Email) => text.push_str("    url: {env: SMTP_URL}\n"),
        (None, Transport::Http | Transport::Stdout | Transport::Feed) => {
            text.push_str("    url: {env: SOAR_URL}\n");
        }
    }
    let needed: Vec<_> =
        preset.params_documented().into_iter().filter(|param| param.default.is_none()).collect();
    if !needed.is_empty() {
        text.push_str("    params:\n");
    }
    for ParamDoc { name, kind, example, .. } in needed {
        let value = match kind {
            "secret" => format!("{{env: SOAR_{}}}", name.to_uppercase()),
            _ => example.to_string(),
        };
        text.extend(["      ", &name, ": ", &value, "\n"]);
    }
    text
}

fn repeated(preset: &Preset) -> &'static str {
    let is_known = |example: &Example| example.means == Meaning::Duplicate && !example.lookup;
    if preset.transport() == Transport::Feed {
        "is given again to whoever asks from before it"
    } else if preset.has_lookup() {
        "looked for first"
    } else if preset.examples().iter().any(is_known) {
        "recognised by the receiver, counted as a duplicate"
    } else {
        "carries the same key; see below"
    }
}

fn section(page: &mut String, preset: &Preset) {
    let mut line = |text: String| {
        page.push_str(&text);
        page.push('\n');
    };
    line(format!("\n## `{}`\n\n{}\n", preset.name(), preset.about()));
    if !preset.notes().is_empty() {
        line(format!("{}\n", preset.notes().trim()));
    }
    line(format!("```yaml\n{}```\n", sample(preset)));
    if let Some(url) = preset.url().filter(|_| preset.transport() != Transport::Feed) {
        line(format!("Address, unless `url` is set: `{url}`.\n"));
    }
    for how in preset.auth_described() {
        line(format!("Authentication: {how}.\n"));
    }
    let params = preset.params_documented();
    if !params.is_empty() {
        line("| parameter | type | default | meaning |\n| --- | --- | --- | --- |".to_owned());
    }
    for param in &params {
        line(row(param));
    }
    let levels: Vec<_> =
        preset.severities().map(|(level, value)| format!("{level} {value}")).collect();
    if !levels.is_empty() {
        line(format!("\nSeverities: {}.", levels.join(", ")));
    }
    let limits = preset.limits();
    let mut most: Vec<_> =
        limits.chars.iter().map(|(at, chars)| format!("`{at}` {chars} characters")).collect();
    most.extend(limits.body_bytes.map(|bytes| format!("the body {bytes} bytes")));
    if !most.is_empty() {
        line(format!("\nLimits: {}.", most.join(", ")));
    }
    if !preset.examples().is_empty() {
        line("\n| answer | means |\n| --- | --- |".to_owned());
    }
    for example in preset.examples() {
        line(answer(example));
    }
}

fn row(param: &ParamDoc) -> String {
    let ParamDoc { name, kind, default, choices, help, .. } = param;
    let default = default.as_ref().map_or("required".to_owned(), |value| format!("`{value}`"));
    let mut kind = (*kind).to_owned();
    if !choices.is_empty() {
        let choices: Vec<_> = choices.iter().map(|choice| format!("`{choice}`")).collect();
        kind = choices.join(", ");
    }
    format!("| `{name}` | {kind} | {default} | {} |", help.trim())
}

fn answer(example: &Example) -> String {
    let Example { lookup, status, body, means } = example;
    let mut text = if *lookup { "to the look-up: ".to_owned() } else { String::new() };
    text.push_str(&status.to_string());
    if !body.is_empty() {
        let _written = write!(text, " `{}`", body.replace('|', "\\|"));
    }
    let means = match (means, lookup) {
        (Meaning::Delivered, true) => "not there yet: it is sent",
        (Meaning::Delivered, false) => "delivered",
        (Meaning::Duplicate, _) => "delivered: it had it already",
        (Meaning::Retry, _) => "kept and tried again",
        (Meaning::AlertFault, _) => "refused",
    };
    format!("| {text} | {means} |")
}
