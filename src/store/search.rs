//! Finds a text in alerts, ignoring case, in the same way for every engine. A search may look at
//! every stored alert, so matching the usual alert allocates nothing.

use std::fmt::{self, Write};

use memchr::memmem::Finder;

/// A text to be found, and a buffer for the text that is searched.
#[derive(Debug)]
pub(super) struct Search {
    wanted: Finder<'static>,
    lower: String,
}

impl Search {
    pub(super) fn new(text: &str) -> Self {
        let wanted = Finder::new(text.to_lowercase().as_bytes()).into_owned();
        Self { wanted, lower: String::new() }
    }

    /// Returns `true` if the wanted text consists of these characters only, ignoring case. If not,
    /// no text of these characters contains the wanted text.
    pub(super) fn is_made_of(&self, characters: &str) -> bool {
        let characters = characters.to_lowercase();
        String::from_utf8_lossy(self.wanted.needle()).chars().all(|one| characters.contains(one))
    }

    /// Returns `true` if the text contains the wanted text.
    pub(super) fn is_in(&mut self, text: &str) -> bool {
        if !text.is_ascii() {
            return self.wanted.find(text.to_lowercase().as_bytes()).is_some();
        }
        self.lower.clear();
        self.lower.push_str(text);
        self.finds()
    }

    /// Returns `true` if the formatted text contains the wanted text.
    pub(super) fn is_in_display(&mut self, parts: fmt::Arguments<'_>) -> bool {
        self.lower.clear();
        if self.lower.write_fmt(parts).is_err() {
            return false;
        }
        if !self.lower.is_ascii() {
            self.lower = self.lower.to_lowercase();
        }
        self.finds()
    }

    fn finds(&mut self) -> bool {
        self.lower.make_ascii_lowercase();
        self.wanted.find(self.lower.as_bytes()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_found_whatever_its_case() {
        let mut search = Search::new("ÜBER");
        assert!(search.is_in("Darüber hinaus") && !search.is_in("uber"));
        assert!(Search::new("kelvin").is_in("\u{212a}ELVIN"), "the Kelvin sign is a k");
        assert!(Search::new("C0A:1.5").is_in_display(format_args!("main:{}:{}", "c0a", 1.5)));
        assert!(Search::new("C0A:1.5").is_made_of("main:C0a:015."));
        assert!(!Search::new("C0A:1.5").is_made_of("main:C0a:01."));
        assert!(Search::new("é").is_in_display(format_args!("CAF\u{c9}")));
    }

    proptest! {
        #[test]
        fn a_search_finds_the_same_as_lowercase_texts(text in ".{0,20}", wanted in ".{0,3}") {
            let plain = text.to_lowercase().contains(&wanted.to_lowercase());
            prop_assert_eq!(Search::new(&wanted).is_in(&text), plain);
            let shown = Search::new(&wanted).is_in_display(format_args!("{text}"));
            prop_assert_eq!(shown, plain);
        }
    }
}
