//! A guard against pages of Slack's that do not end. Pure.

use std::collections::HashSet;

/// Pages in a row that may bring nothing new. An empty page with a new cursor is legal: Slack
/// leaves out what does not fit after it has cut a page (docs.slack.dev/apis/web-api/pagination).
const BARREN_PAGES: u32 = 10;

/// Reason for which reading pages is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Astray {
    /// Slack gave a cursor that it had given before.
    #[error("Slack's pages go in a circle: a cursor came back")]
    Circle,
    /// Page after page brought nothing new.
    #[error("Slack's pages do not end: {BARREN_PAGES} in a row brought nothing new")]
    Endless,
    /// Slack says that there is more, without a cursor.
    #[error("Slack says that there is more and not where")]
    Nowhere,
}

/// State of reading one sequence of pages.
///
/// ```
/// use slack_soar_relay::slack::web_api::{Astray, Pages};
/// let mut pages = Pages::default();
/// assert_eq!(pages.follow(Some("a="), true), Ok(()));
/// assert_eq!(pages.follow(Some("b="), true), Ok(()));
/// assert_eq!(pages.follow(Some("a="), true), Err(Astray::Circle));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Pages {
    cursors: HashSet<String>,
    barren: u32,
}

impl Pages {
    /// Notes a page that is not the last: the cursor of the next one, if Slack gave it, and whether
    /// the page brought anything new.
    ///
    /// # Errors
    /// [`Astray`] if reading on is useless.
    pub fn follow(&mut self, cursor: Option<&str>, is_news: bool) -> Result<(), Astray> {
        if cursor.is_some_and(|cursor| !self.cursors.insert(cursor.to_owned())) {
            return Err(Astray::Circle);
        }
        self.barren = if is_news { 0 } else { self.barren + 1 };
        if self.barren >= BARREN_PAGES { Err(Astray::Endless) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_pages_in_a_row_without_news_end_the_walk_and_nine_do_not() {
        let mut pages = Pages::default();
        for page in 0..9 {
            assert_eq!(pages.follow(Some(&format!("{page}=")), false), Ok(()));
        }
        assert_eq!(pages.follow(Some("news="), true), Ok(()));
        for page in 10..19 {
            assert_eq!(pages.follow(Some(&format!("{page}=")), false), Ok(()));
        }
        assert_eq!(pages.follow(Some("19="), false), Err(Astray::Endless));
    }

    #[test]
    fn a_cursor_that_leads_to_itself_or_comes_back_is_a_circle() {
        for circle in [&["a", "a"][..], &["a", "b", "a"], &["a", "b", "c", "b"]] {
            let mut pages = Pages::default();
            let (last, before) = circle.split_last().unwrap();
            for cursor in before {
                assert_eq!(pages.follow(Some(cursor), true), Ok(()));
            }
            assert_eq!(pages.follow(Some(last), true), Err(Astray::Circle), "{circle:?}");
        }
    }
}
