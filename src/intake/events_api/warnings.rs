//! Warnings about requests that senders can cause at will, so each is logged once in a while with
//! the number of times it happened.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{clock::Seldom, ids::AppName};

/// Pause between two warnings of a kind.
const MINUTE: Duration = Duration::from_secs(60);

/// Pause between two warnings about events of one workspace that no app is configured for.
const FOREIGN_TEAM_PAUSE: Duration = Duration::from_secs(3600);

/// Limit of a foreign text in a warning.
const SHOWN_CHARS: usize = 80;

/// Number of subjects that are told apart. A new one replaces the one warned about longest ago.
const MAX_SUBJECTS: usize = 16;

/// Warnings about requests, each limited in its rate.
#[derive(Debug)]
pub(super) struct Warnings {
    unknown_paths: SubjectLimiter,
    foreign_teams: SubjectLimiter,
    unsettled: SubjectLimiter,
    unparsable: SubjectLimiter,
    crowded: Seldom,
    overload: Seldom,
}

impl Warnings {
    pub(super) const fn new() -> Self {
        Self {
            unknown_paths: SubjectLimiter::new(MINUTE),
            foreign_teams: SubjectLimiter::new(FOREIGN_TEAM_PAUSE),
            unsettled: SubjectLimiter::new(MINUTE),
            unparsable: SubjectLimiter::new(MINUTE),
            crowded: Seldom::every(MINUTE),
            overload: Seldom::every(MINUTE),
        }
    }

    /// Warns about a post to the path of an app that is not configured.
    pub(super) fn unknown_path(&self, path: &str, now: Instant) {
        if let Some(times) = self.unknown_paths.is_due("", now) {
            let path = shown(path);
            tracing::warn!(
                path,
                times,
                "a post to {path} was answered 404: no configured app has that path; compare the \
                 request URL at Slack with `slack.apps`"
            );
        }
    }

    /// Warns about an authentic event that is refused because a secret file may be about to change.
    pub(super) fn unsettled(&self, team: &str, now: Instant) {
        let team = shown(team);
        if let Some(times) = self.unsettled.is_due(&team, now) {
            tracing::warn!(
                team,
                times,
                "authentic events of workspace {team} are answered 503, so that Slack sends them \
                 again: the app with that `team` has another signing secret. If both are one Slack \
                 app, give them the same secret; if not, these events will be ignored"
            );
        }
    }

    /// Warns about an authentic body that cannot be parsed.
    pub(super) fn unparsable(&self, app: &AppName, bytes: usize, now: Instant) {
        if let Some(times) = self.unparsable.is_due(app.as_str(), now) {
            tracing::warn!(
                %app,
                bytes,
                times,
                "{times} authentic requests of app {app} cannot be read; the newest bodies are kept"
            );
        }
    }

    /// Warns about an authentic event of a workspace for which no app with its secret is
    /// configured.
    pub(super) fn foreign_team(&self, team: &str, now: Instant) {
        let team = shown(team);
        if let Some(times) = self.foreign_teams.is_due(&team, now) {
            tracing::warn!(
                team,
                times,
                "authentic events of workspace {team} are ignored: no app with that signing secret \
                 has it as its `team`"
            );
        }
    }

    /// Warns that unverified bodies use up their memory.
    pub(super) fn crowded(&self, path: &str, now: Instant) {
        if self.crowded.is_due(now) {
            tracing::warn!(
                path,
                "requests whose bodies arrive slowly fill the room for them: the oldest are cut \
                 off (logged once a minute)"
            );
        }
    }

    /// Warns that verified requests are refused because too many are in progress.
    pub(super) fn overload(&self, path: &str, now: Instant) {
        if self.overload.is_due(now) {
            tracing::warn!(
                path,
                "as many requests of Slack's are in progress as may be at once: others are \
                 answered 503, and Slack sends them again (logged once a minute)"
            );
        }
    }
}

/// Returns the beginning of a foreign text, fit for the log.
fn shown(text: &str) -> String {
    text.escape_default().take(SHOWN_CHARS).collect()
}

/// A limit on how often something is logged about each of several subjects.
#[derive(Debug)]
struct SubjectLimiter {
    every: Duration,
    subjects: Mutex<Vec<Subject>>,
}

#[derive(Debug)]
struct Subject {
    name: String,
    logged_at: Instant,
    /// Occurrences since then.
    times: u64,
}

impl SubjectLimiter {
    const fn new(every: Duration) -> Self {
        Self { every, subjects: Mutex::new(Vec::new()) }
    }

    /// Counts an occurrence. Returns the number of them since the last log line if another line is
    /// due.
    fn is_due(&self, name: &str, now: Instant) -> Option<u64> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subject) = subjects.iter_mut().find(|subject| subject.name == name) {
            subject.times += 1;
            if now.saturating_duration_since(subject.logged_at) < self.every {
                return None;
            }
            subject.logged_at = now;
            return Some(std::mem::take(&mut subject.times));
        }
        if subjects.len() >= MAX_SUBJECTS {
            let oldest = subjects.iter().enumerate().min_by_key(|(_, subject)| subject.logged_at);
            if let Some((at, _)) = oldest {
                subjects.swap_remove(at);
            }
        }
        subjects.push(Subject { name: name.to_owned(), logged_at: now, times: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_subject_is_logged_once_in_a_while_with_the_number_of_times() {
        let limiter = SubjectLimiter::new(Duration::from_secs(60));
        let now = Clock::system().instant();
        let at = |seconds| now + Duration::from_secs(seconds);
        let occurrences = [("a", 0), ("a", 1), ("b", 1), ("a", 59), ("a", 60), ("a", 61)];
        let due = occurrences.map(|(subject, seconds)| limiter.is_due(subject, at(seconds)));
        assert_eq!(due, [Some(1), None, Some(1), None, Some(3), None]);
    }

    #[test]
    fn the_number_of_subjects_is_bounded() {
        let limiter = SubjectLimiter::new(Duration::from_secs(60));
        let now = Clock::system().instant();
        for n in 0..1_000 {
            limiter.is_due(&n.to_string(), now);
        }
        assert_eq!(limiter.subjects.lock().unwrap().len(), MAX_SUBJECTS);
    }
}
