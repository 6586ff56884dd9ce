//! Log lines that others can cause at will: each is said once in a while, with how often it
//! happened.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most subjects that are told apart; the one said longest ago makes room.
const MAX_SUBJECTS: usize = 16;

/// Remembers when something was said of which subject.
#[derive(Debug)]
pub(super) struct Seldom {
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
    pub(super) const fn new(every: Duration) -> Self {
        Self { every, said: Mutex::new(Vec::new()) }
    }

    /// Returns how often it has happened since the last time it was said, if it is time to say it
    /// again.
    pub(super) fn is_time(&self, subject: &str, now: Instant) -> Option<u64> {
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
