//! Requests that are for no app of ours. Others cause them at will, so each kind is logged once in
//! a while, with how often it happened.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    ids::AppName,
    intake::{
        fate::{Fate, FateCounters},
        notes::Notes,
    },
    metrics::Metrics,
};

/// Between two log lines about what others can cause at will.
const MINUTE: Duration = Duration::from_secs(60);

/// Between two log lines about events of one workspace that no app is configured for.
const FOREIGN_TEAM_PAUSE: Duration = Duration::from_secs(3600);

/// As much of a path is logged.
const SHOWN_PATH_CHARS: usize = 80;

/// The most subjects that are told apart; the one said longest ago makes room.
const MAX_SUBJECTS: usize = 16;

/// What is remembered of such requests.
#[derive(Debug)]
pub(super) struct Strays {
    counters: FateCounters,
    unknown_apps: Seldom,
    foreign_teams: Seldom,
    unsettled: Seldom,
    unparsable: Seldom,
}

impl Strays {
    pub(super) fn new(metrics: &Metrics, notes: &Arc<Notes>) -> Self {
        Self {
            counters: FateCounters::new("", metrics, notes),
            unknown_apps: Seldom::new(MINUTE),
            foreign_teams: Seldom::new(FOREIGN_TEAM_PAUSE),
            unsettled: Seldom::new(MINUTE),
            unparsable: Seldom::new(MINUTE),
        }
    }

    /// Counts a post to the path of an app that is not configured.
    pub(super) fn note_path(&self, path: &str, now: Instant) {
        self.counters.count(Fate::UnknownApp);
        if let Some(times) = self.unknown_apps.is_time("", now) {
            let path: String = path.escape_default().take(SHOWN_PATH_CHARS).collect();
            tracing::warn!(
                path,
                times,
                "a post to {path} was answered 404: no configured app has that path; compare the \
                 request URL at Slack with `slack.apps`"
            );
        }
    }

    /// Notes an authentic event that is refused because a secret may be about to follow.
    pub(super) fn note_unsettled(&self, team: &str, now: Instant) {
        let team: &str = &team.escape_default().take(SHOWN_PATH_CHARS).collect::<String>();
        if let Some(times) = self.unsettled.is_time(team, now) {
            tracing::warn!(
                team,
                times,
                "authentic events of workspace {team} are answered 503, so that Slack sends them \
                 again: the app with that `team` has another signing secret. If both are one Slack \
                 app, give them the same secret; if not, these events will be ignored"
            );
        }
    }

    /// Notes an authentic body that cannot be read.
    pub(super) fn note_unparsable(&self, app: &AppName, bytes: usize, now: Instant) {
        if let Some(times) = self.unparsable.is_time(app.as_str(), now) {
            tracing::warn!(
                %app,
                bytes,
                times,
                "{times} authentic requests of app {app} cannot be read; the newest bodies are kept"
            );
        }
    }

    /// Notes an authentic event of a workspace that no app with its secret takes events of.
    pub(super) fn note_team(&self, team: &str, now: Instant) {
        let team: &str = &team.escape_default().take(SHOWN_PATH_CHARS).collect::<String>();
        if let Some(times) = self.foreign_teams.is_time(team, now) {
            tracing::warn!(
                team,
                times,
                "authentic events of workspace {team} are ignored: no app with that signing secret \
                 has it as its `team`"
            );
        }
    }
}

/// Remembers when something was said of which subject.
#[derive(Debug)]
struct Seldom {
    every: Duration,
    said: Mutex<Vec<Said>>,
}

#[derive(Debug)]
struct Said {
    subject: String,
    at: Instant,
    /// How often it has happened since.
    since: u64,
}

impl Seldom {
    const fn new(every: Duration) -> Self {
        Self { every, said: Mutex::new(Vec::new()) }
    }

    /// Returns how often it has happened since the last time it was said, if it is time to say it
    /// again.
    fn is_time(&self, subject: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = said.iter_mut().find(|known| known.subject == subject) {
            known.since += 1;
            if now.saturating_duration_since(known.at) < self.every {
                return None;
            }
            known.at = now;
            return Some(std::mem::take(&mut known.since));
        }
        if said.len() >= MAX_SUBJECTS {
            let oldest = said.iter().enumerate().min_by_key(|(_, known)| known.at);
            if let Some((at, _)) = oldest {
                said.swap_remove(at);
            }
        }
        said.push(Said { subject: subject.to_owned(), at: now, since: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_subject_is_said_once_in_a_while_with_how_often_it_happened() {
        let seldom = Seldom::new(Duration::from_secs(60));
        let now = Clock::system().instant();
        let at = |seconds| now + Duration::from_secs(seconds);
        let said = [("a", 0), ("a", 1), ("b", 1), ("a", 59), ("a", 60), ("a", 61)];
        let said = said.map(|(subject, seconds)| seldom.is_time(subject, at(seconds)));
        assert_eq!(said, [Some(1), None, Some(1), None, Some(3), None]);
    }

    #[test]
    fn the_number_of_subjects_is_bounded() {
        let seldom = Seldom::new(Duration::from_secs(60));
        let now = Clock::system().instant();
        for n in 0..1_000 {
            seldom.is_time(&n.to_string(), now);
        }
        assert_eq!(seldom.said.lock().unwrap().len(), MAX_SUBJECTS);
    }
}
