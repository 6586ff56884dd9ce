//! Memory of the receiver and catch-up beside the store and the metrics: the bots that post, the
//! messages that were ignored or refused, and the warnings that were logged about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::posters::{Bot, Ledger};
use crate::{
    clock::{Clock, Timestamp},
    code_defender::verdict::Reason,
    ids::{AppName, ChannelId, MessageTs},
    slack::message::Message,
};

/// Shortest time between two warnings about messages of one app that are refused for one reason.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Most pairs of channel and reason for which refusals are counted.
const MAX_REFUSED: usize = 200;

/// Most alerts in a new layout from one bot within [`LAYOUT_MICROS`], so that a program that
/// answers its own alerts comes to an end.
const MAX_LAYOUT_ALERTS: usize = 20;
const LAYOUT_MICROS: i64 = 3_600_000_000;

/// Most bots, and most messages of each, that are remembered to count these alerts.
const MAX_LAYOUT_BOTS: usize = 100;
const MAX_LAYOUT_MESSAGES: usize = 1_000;

/// Counts and recent messages, shared by the receiver and every poller. Reloads keep them.
#[derive(Debug, Default)]
pub struct Notes {
    /// Incidents of each bot.
    pub posters: Ledger,
    inner: Mutex<NotesInner>,
}

#[derive(Debug, Default)]
struct NotesInner {
    ignored: BTreeMap<String, BTreeMap<&'static str, u64>>,
    refused: Vec<RefusedMessages>,
    said: BTreeMap<(AppName, Reason), LoggedRefusal>,
    layouts: Vec<LayoutAlerts>,
}

/// Messages of one channel with the title of incidents that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedMessages {
    /// App that received the messages.
    pub app: AppName,
    /// Channel in which they were posted.
    pub channel: ChannelId,
    /// Reason of the refusal.
    pub reason: Reason,
    /// Number of messages since the start.
    pub count: u64,
    /// Time at which the newest reached the relay.
    pub last: Timestamp,
    /// Slack's timestamp of the newest.
    pub last_ts: String,
}

#[derive(Debug)]
struct LoggedRefusal {
    at: Instant,
    /// Messages refused since then.
    since: u64,
}

#[derive(Debug)]
struct LayoutAlerts {
    app: AppName,
    bot: Bot,
    /// Times at which the messages were posted.
    posted: BTreeSet<MessageTs>,
    is_said: bool,
}

impl LayoutAlerts {
    fn may_alert(&mut self, posted_at: MessageTs) -> bool {
        if self.posted.contains(&posted_at) {
            return true;
        }
        let at = |micros| MessageTs::from_micros(micros);
        let hour = at(posted_at.micros().saturating_sub(LAYOUT_MICROS) + 1)
            ..at(posted_at.micros().saturating_add(LAYOUT_MICROS));
        let is_room = self.posted.range(hour).count() < MAX_LAYOUT_ALERTS;
        if is_room {
            self.is_said = false;
            self.posted.insert(posted_at);
            if self.posted.len() > MAX_LAYOUT_MESSAGES {
                self.posted.pop_first();
            }
        }
        is_room
    }

    fn say(&mut self) {
        if std::mem::replace(&mut self.is_said, true) {
            return;
        }
        let Self { app, bot, .. } = self;
        tracing::warn!(
            %app,
            bot_id = bot.bot_id,
            app_id = bot.app_id,
            "bot {} has posted {MAX_LAYOUT_ALERTS} incidents in a new layout within an hour; \
             what else it posts is kept as near misses",
            if bot.bot_id.is_empty() { &bot.app_id } else { &bot.bot_id }
        );
    }
}

impl Notes {
    /// Counts ignored events. `app` is empty for events that belong to no app.
    pub(super) fn count(&self, app: &str, reason: &'static str, times: u64) {
        let mut inner = self.inner();
        if !inner.ignored.contains_key(app) {
            inner.ignored.insert(app.to_owned(), BTreeMap::new());
        }
        if let Some(ignored) = inner.ignored.get_mut(app) {
            *ignored.entry(reason).or_default() += times;
        }
    }

    /// Counts a message with the title of incidents that is refused, and logs a warning once a
    /// minute for each reason.
    pub(super) fn refused(
        &self,
        app: &AppName,
        reason: Reason,
        message: &Message<'_>,
        clock: &Clock,
    ) {
        let (channel, ts) = (&*message.channel, &*message.ts);
        log_ignored(app, reason, message);
        // The lock is released before the line is written: every ignored message needs it to be
        // counted.
        let since = {
            let mut inner = self.inner();
            inner.note_refused(app, reason, message, clock.now());
            inner.times_to_say(app, reason, clock.instant())
        };
        if let Some(times) = since {
            let why = explain(reason);
            let reason = reason.label();
            let again =
                if times > 1 { format!(" ({times} since the last line)") } else { String::new() };
            tracing::warn!(
                %app,
                channel,
                ts,
                reason,
                times,
                "message {ts} in {channel} has the title of incidents and is not taken: \
                 {why}{again}"
            );
        }
    }

    /// Counts a bot's message in a new layout and returns whether it may be an alert. A message
    /// counts once, however often it is read, at the time at which it was posted.
    pub(super) fn may_alert(&self, app: &AppName, bot: &Bot, posted_at: MessageTs) -> bool {
        let mut inner = self.inner();
        let at = inner.layouts.iter().position(|one| one.app == *app && one.bot == *bot);
        // Taken out and put back at the end, so that the bot that was silent for longest is
        // forgotten first.
        let mut known = match at {
            Some(at) => inner.layouts.remove(at),
            None => LayoutAlerts {
                app: app.clone(),
                bot: bot.clone(),
                posted: BTreeSet::new(),
                is_said: false,
            },
        };
        let may_alert = known.may_alert(posted_at);
        if !may_alert {
            known.say();
        }
        inner.layouts.push(known);
        if inner.layouts.len() > MAX_LAYOUT_BOTS {
            inner.layouts.remove(0);
        }
        may_alert
    }

    /// Returns the number of events of an app that were ignored since the start, by reason. An
    /// empty name stands for events that belong to no app.
    pub fn ignored_of(&self, app: &str) -> BTreeMap<&'static str, u64> {
        self.inner().ignored.get(app).cloned().unwrap_or_default()
    }

    /// Returns the refused messages of an app.
    pub fn refused_of(&self, app: &AppName) -> Vec<RefusedMessages> {
        self.inner().refused.iter().filter(|one| one.app == *app).cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, NotesInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NotesInner {
    fn note_refused(
        &mut self,
        app: &AppName,
        reason: Reason,
        message: &Message<'_>,
        now: Timestamp,
    ) {
        let channel = ChannelId::new(&message.channel);
        let last_ts = message.ts.clone().into_owned();
        let is_same = |one: &&mut RefusedMessages| {
            one.channel == channel && one.reason == reason && one.app == *app
        };
        if let Some(known) = self.refused.iter_mut().find(is_same) {
            known.count += 1;
            known.last = now;
            known.last_ts = last_ts;
            return;
        }
        // The channel and reason without a refusal for longest make room for the new ones.
        if self.refused.len() >= MAX_REFUSED {
            let oldest = self.refused.iter().enumerate().min_by_key(|(_, one)| one.last);
            if let Some((at, _)) = oldest {
                self.refused.swap_remove(at);
            }
        }
        let app = app.clone();
        self.refused.push(RefusedMessages { app, channel, reason, count: 1, last: now, last_ts });
    }

    /// Returns the number of refusals since the last warning if another warning is due.
    fn times_to_say(&mut self, app: &AppName, reason: Reason, now: Instant) -> Option<u64> {
        let Some(said) = self.said.get_mut(&(app.clone(), reason)) else {
            self.said.insert((app.clone(), reason), LoggedRefusal { at: now, since: 0 });
            return Some(1);
        };
        said.since += 1;
        if now.saturating_duration_since(said.at) < REFUSED_PAUSE {
            return None;
        }
        said.at = now;
        Some(std::mem::take(&mut said.since))
    }
}

/// Logs at DEBUG that a message is ignored.
pub(super) fn log_ignored(app: &AppName, reason: Reason, message: &Message<'_>) {
    let (reason, channel, ts) = (reason.label(), &*message.channel, &*message.ts);
    let subtype = &*message.subtype;
    tracing::debug!(
        %app,
        reason,
        channel,
        ts,
        subtype,
        "message {ts} in {channel} is ignored: {reason}"
    );
}

/// Logs at DEBUG that an event that is not a message is ignored.
pub(super) fn log_ignored_event(app: &AppName, reason: &'static str) {
    tracing::debug!(%app, reason, "an event of app {app} is ignored: {reason}");
}

/// Returns an explanation why a message with the title of incidents is refused.
pub const fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Channel => "its channel is not in `channels` of the app",
        Reason::NoBot => "a person posted it, and not a bot",
        Reason::BotNotAllowed => "its bot is not in `bots` of the app",
        Reason::Unfurl => "the title is that of a page or message that was linked to",
        Reason::Subtype => "Slack reports something other than a post",
        Reason::NearMiss => "it may be an incident, and is kept as a near miss",
        Reason::Title => "it does not have the title of incidents",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> AppName {
        AppName::new("main").unwrap()
    }

    fn bot(bot_id: &str) -> Bot {
        Bot { bot_id: bot_id.to_owned(), app_id: String::new() }
    }

    #[test]
    fn a_bot_may_alert_twenty_times_an_hour_in_a_new_layout() {
        let notes = Notes::default();
        let at = |seconds: i64| MessageTs::from_micros((1_600_000_000 + seconds) * 1_000_000);
        for n in 0..20 {
            assert!(notes.may_alert(&app(), &bot("B1"), at(n)));
        }
        assert!(!notes.may_alert(&app(), &bot("B1"), at(20)));
        assert!(notes.may_alert(&app(), &bot("B1"), at(7)), "the same message, read again");
        assert!(notes.may_alert(&app(), &bot("B2"), at(20)), "each bot by itself");
        assert!(!notes.may_alert(&app(), &bot("B1"), at(3_599)));
        assert!(notes.may_alert(&app(), &bot("B1"), at(3_600)), "the first is an hour old");
        let next = MessageTs::from_micros(at(3_600).micros() + 1);
        assert!(!notes.may_alert(&app(), &bot("B1"), next));
    }

    #[test]
    fn a_refusal_is_logged_once_a_minute_for_each_reason_with_a_count() {
        let mut inner = NotesInner::default();
        let start = Clock::system().instant();
        let mut say = |reason, seconds| {
            inner.times_to_say(&app(), reason, start + Duration::from_secs(seconds))
        };
        let said = [
            say(Reason::NoBot, 0),
            say(Reason::NoBot, 1),
            say(Reason::Channel, 1),
            say(Reason::NoBot, 59),
            say(Reason::NoBot, 60),
            say(Reason::NoBot, 61),
        ];
        assert_eq!(said, [Some(1), None, Some(1), None, Some(3), None]);
    }
}
