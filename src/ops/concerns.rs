//! Judges a status: the conditions that a person should know. Pure. The API, `status` and `doctor`
//! all show these concerns, so all three say the same.

use std::time::Duration;

use super::view::{
    App, Concern, ConcernKind as Kind, Destination, Pause, Refused, Signing, Status,
};
use crate::clock::{Timestamp, rough};

/// Age from which a waiting alert is a concern.
const LONG: Duration = Duration::from_secs(300);

/// Returns every concern, the most urgent first.
pub(super) fn concerns(status: &Status, now: Timestamp) -> Vec<Concern> {
    let mut all: Vec<Concern> = Vec::new();
    all.extend(readiness(status));
    all.extend(status.apps.iter().filter_map(|app| signing(app, now)));
    all.extend(configuration(status, now));
    for destination in &status.destinations {
        all.extend(of_destination(destination, now));
    }
    all.extend(unrouted(status));
    all.extend(unread(status));
    all.extend(status.apps.iter().flat_map(not_taken));
    all.extend(status.apps.iter().flat_map(of_app));
    let order = |concern: &Concern| {
        Kind::ALL.iter().position(|kind| kind.as_str() == concern.kind).unwrap_or(usize::MAX)
    };
    all.sort_by_key(order);
    all
}

fn readiness(status: &Status) -> Option<Concern> {
    let problems = [&status.store.problem, &status.not_ready_reason];
    let reason = problems.into_iter().find(|reason| !reason.is_empty());
    if status.ready && reason.is_none() {
        return None;
    }
    let reason = reason.map_or("it does not say why", String::as_str);
    let advice = if status.store.answers {
        "Slack sends them again for a while, and what is stored is still delivered: \
         `slack-soar-relay doctor` looks at the store and its disk"
    } else {
        "Slack sends them again for a while, and nothing is delivered or counted until the store \
         answers: `slack-soar-relay doctor` looks at the store"
    };
    Some(Kind::NotReady.concern("", format!("takes no alerts: {reason}"), advice.to_owned()))
}

/// Returns the concern that requests have a wrong signature and none has verified since.
fn signing(app: &App, now: Timestamp) -> Option<Concern> {
    let Signing { last_verified_at, rejected, .. } = &app.signing;
    if *rejected == 0 {
        return None;
    }
    let since =
        last_verified_at.map_or("since the start".to_owned(), |at| format!("for {}", ago(at, now)));
    let message = format!(
        "nothing has verified {since}, and requests that look like Slack's had a wrong signature: \
         {rejected}"
    );
    let advice = "open https://api.slack.com/apps, choose the app, Basic Information, App \
                  Credentials, Signing Secret, Show, and put that value where `signing_secret` \
                  points to";
    Some(Kind::Signing.concern(&format!("app {}", app.name), message, advice.to_owned()))
}

fn configuration(status: &Status, now: Timestamp) -> Option<Concern> {
    let configuration = &status.configuration;
    if configuration.is_newest {
        return None;
    }
    let when = configuration.refused_at.map(|at| format!(" {} ago", ago(at, now)));
    let message = format!(
        "the newest configuration was refused{}, the one before it is in use: {}",
        when.unwrap_or_default(),
        configuration.refused_reason
    );
    let advice = "`slack-soar-relay check` names every mistake and its line".to_owned();
    Some(Kind::Configuration.concern("", message, advice))
}

fn of_destination(one: &Destination, now: Timestamp) -> Vec<Concern> {
    let name = one.name.as_str();
    let waiting = one.pending + one.refused + one.leased;
    let mut all = Vec::new();
    // The store remembers destinations that are gone. Without any alerts left they need no
    // attention.
    if !one.configured && waiting + one.dead == 0 {
        return all;
    }
    let mut add = |kind: Kind, message: String, advice: String| {
        all.push(kind.concern(name, message, advice));
    };
    if !one.configured {
        let (waiting, dead) = (wait(waiting), one.dead);
        let message = format!("is not configured any more: {waiting} for it, dead: {dead}");
        let advice = format!(
            "put it back into the configuration, or `slack-soar-relay alerts cancel --all-pending \
             --destination {name}` (and `--all-dead`)"
        );
        add(Kind::Orphaned, message, advice);
    }
    if let Some(pause) = &one.pause {
        let advice = format!("`slack-soar-relay destinations resume {name}`");
        add(Kind::Paused, paused(pause, waiting, now), advice);
    }
    if one.breaker_open {
        let advice =
            format!("{}; `slack-soar-relay destinations test {name}` tries it now", mend(one));
        add(Kind::BreakerOpen, failing(one, waiting, now), advice);
    }
    if one.refused > 0 {
        let refused = alerts(one.refused);
        let last = last(one);
        let message = format!(
            "refuses {refused} and has accepted none since{last}; look at its key and params"
        );
        let advice = "mend its key, params or preset: they are then tried anew by themselves; \
                      `slack-soar-relay alerts list --state refused`"
            .to_owned();
        add(Kind::Refused, message, advice);
    }
    // The dead ones of a removed destination are in the message about it.
    if one.dead > 0 && one.configured {
        let advice = format!(
            "`slack-soar-relay alerts list --state dead` shows them, `slack-soar-relay alerts \
             retry --all-dead --destination {name}` tries them again"
        );
        add(Kind::Dead, format!("given up: {}", alerts(one.dead)), advice);
    }
    if let Some(message) = behind(one, waiting, now) {
        let advice = if one.read {
            "see to its reader: docs/feed.md".to_owned()
        } else {
            "`slack-soar-relay alerts list --state pending`; docs/operations.md, Delivering"
                .to_owned()
        };
        add(Kind::Behind, message, advice);
    }
    if !one.notice.is_empty() {
        let advice = "alerts are delivered all the same; see its settings".to_owned();
        add(Kind::Destination, one.notice.clone(), advice);
    }
    all
}

fn paused(pause: &Pause, waiting: u64, now: Timestamp) -> String {
    let end = pause_end(pause, now);
    let reason =
        if pause.reason.is_empty() { String::new() } else { format!(" ({})", pause.reason) };
    let (since, waiting) = (ago(pause.since, now), wait(waiting));
    format!("was paused {since} ago{reason}, {end}: {waiting}")
}

/// Returns when a pause ends, for the middle of a sentence.
pub(super) fn pause_end(pause: &Pause, now: Timestamp) -> String {
    match pause.until {
        None => "it has no end".to_owned(),
        Some(until) if until > now => format!("it ends in {}", ago(now, until)),
        Some(_past) => "it ends any moment now".to_owned(),
    }
}

fn failing(one: &Destination, waiting: u64, now: Timestamp) -> String {
    let since = one.breaker.map(|breaker| format!(" for {}", ago(breaker.since, now)));
    let next = one.breaker.map(|breaker| {
        if breaker.next_try_at > now {
            format!(", next try in {}", ago(now, breaker.next_try_at))
        } else {
            ", next try now".to_owned()
        }
    });
    let (since, next) = (since.unwrap_or_default(), next.unwrap_or_default());
    format!("fails{since}, its breaker is open{next}: {}{}", wait(waiting), last(one))
}

/// Returns the advice that fits the newest failure.
fn mend(one: &Destination) -> &'static str {
    let failure = one.last_failure.as_ref();
    match failure.map(|failure| (failure.class.as_str(), failure.status)) {
        Some(("auth", _)) => {
            "its key, token or password is not accepted: put a valid one where its settings point \
             to (a changed file is used at once, a changed variable after a restart)"
        }
        Some((_, Some(404 | 405 | 410))) => {
            "there is nothing at that address: compare it (`url`, `params`) with the one that the \
             destination shows"
        }
        Some((_, Some(300..=399))) => {
            "it redirects, which is not followed: put the address that it names into its `url`"
        }
        Some((_, Some(500..))) => {
            "it is reached, and fails by its own account: see to its log or its operator; what \
             waits is sent once it works"
        }
        Some((_, Some(_))) => "its answer says what it wants: compare its settings",
        Some((_, None)) | None => {
            "`slack-soar-relay doctor` tries the way to it: name, port, proxy, certificate"
        }
    }
}

/// Returns a description of alerts that have waited for long without another concern that explains
/// it.
fn behind(one: &Destination, waiting: u64, now: Timestamp) -> Option<String> {
    let oldest = one.oldest_pending_at.filter(|at| now.since(*at) > LONG)?;
    let is_explained =
        !one.configured || one.pause.is_some() || one.breaker_open || one.refused > 0;
    if is_explained || waiting == 0 {
        return None;
    }
    let (waiting, age) = (wait(waiting), ago(oldest, now));
    if one.read {
        let read = one.last_read_at.map_or("nobody has read it since the start".to_owned(), |at| {
            format!("it was last read {} ago", ago(at, now))
        });
        return Some(format!("{waiting} for a reader, the oldest for {age}; {read}"));
    }
    Some(format!("{waiting}, the oldest for {age}{}", last(one)))
}

/// Returns the newest failure, for the end of a sentence.
fn last(one: &Destination) -> String {
    let Some(failure) = &one.last_failure else {
        return String::new();
    };
    let status = failure.status.map(|status| format!(" {status}")).unwrap_or_default();
    let excerpt: String = failure.excerpt.chars().take(EXCERPT).collect();
    let excerpt = if excerpt.is_empty() { excerpt } else { format!(" {excerpt}") };
    format!("; the last answer: {}{status}{excerpt}", failure.class)
}

/// Characters of an answer that are repeated.
const EXCERPT: usize = 120;

fn unrouted(status: &Status) -> Option<Concern> {
    let number = status.unrouted.filter(|number| *number > 0)?;
    let message = format!("no destination wanted {}", alerts(number));
    let advice = "`slack-soar-relay alerts list --state unrouted` shows them; once a destination \
                  takes such alerts (`when`), `slack-soar-relay alerts retry --all-unrouted` sends \
                  them"
        .to_owned();
    Some(Kind::Unrouted.concern("", message, advice))
}

/// Returns the concerns about near misses and quarantined bodies that nobody has looked at.
fn unread(status: &Status) -> Vec<Concern> {
    let mut all = Vec::new();
    let near_misses = status.near_misses.unread;
    if near_misses > 0 {
        let message = format!("messages that may be incidents and were not taken: {near_misses}");
        let advice = "`slack-soar-relay alerts list --near-misses` shows them and why; \
                      `slack-soar-relay alerts adopt ID` makes one an alert";
        all.push(Kind::NearMisses.concern("", message, advice.to_owned()));
    }
    let bodies = status.quarantine.unread;
    if bodies > 0 {
        let message = format!("authentic requests that could not be read: {bodies}");
        let advice = "`slack-soar-relay alerts list --quarantine` shows them";
        all.push(Kind::Quarantine.concern("", message, advice.to_owned()));
    }
    all
}

/// Returns the concerns about refused messages with an incident's title, by channel.
fn not_taken(app: &App) -> Vec<Concern> {
    let concern = |one: &Refused| {
        let Refused { reason, channel, count, last_ts, .. } = one;
        let message = format!(
            "messages in channel {channel} with the title of incidents were not taken ({reason}): \
             {count}, the newest {last_ts}"
        );
        let advice = "if they should be, mend `channels` or `bots` of the app; \
                      `slack-soar-relay explain --message FILE` says why a message is not taken";
        Kind::NotTaken.concern(&format!("app {}", app.name), message, advice.to_owned())
    };
    app.refused.iter().map(concern).collect()
}

fn of_app(app: &App) -> Vec<Concern> {
    let Some(catch_up) = &app.catch_up else {
        return Vec::new();
    };
    let about = format!("app {}", app.name);
    let mut all = Vec::new();
    let advice = "`slack-soar-relay doctor` looks at the token, its scopes and each channel";
    let mut add = |message: String| {
        all.push(Kind::CatchUp.concern(&about, message, advice.to_owned()));
    };
    if !catch_up.problem.is_empty() {
        add(format!("history is not read: {}", catch_up.problem));
    }
    for channel in catch_up.channels.iter().filter(|channel| !channel.problem.is_empty()) {
        let shown = if channel.name.is_empty() { &channel.id } else { &channel.name };
        add(format!("the history of {shown} is not read: {}", channel.problem));
    }
    // A name stays unresolved while Slack cannot be asked; that problem is already shown.
    if catch_up.problem.is_empty() && !catch_up.unresolved.is_empty() {
        add(format!("no channel is known by the name {}", catch_up.unresolved.join(", ")));
    }
    let missed: u64 = catch_up.channels.iter().map(|one| one.missed_pushes_in_a_day).sum();
    if missed > 0 {
        let message =
            format!("Slack did not push {missed} incidents of the last 24 h; catch-up found them");
        let advice = "open https://api.slack.com/apps, choose the app, Event Subscriptions: it must \
                      be on, its Request URL verified, and Delayed Events on; `slack-soar-relay \
                      doctor`";
        all.push(Kind::MissedPush.concern(&about, message, advice.to_owned()));
    }
    all
}

fn ago(at: Timestamp, now: Timestamp) -> String {
    rough(now.since(at))
}

fn wait(number: u64) -> String {
    if number == 1 { "1 alert waits".to_owned() } else { format!("{number} alerts wait") }
}

fn alerts(number: u64) -> String {
    if number == 1 { "1 alert".to_owned() } else { format!("{number} alerts") }
}
