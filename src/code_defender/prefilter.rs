//! A quick test that rules out messages without any sign of an incident.

use regex::Regex;

use super::settings::FieldTitles;

/// One case-insensitive search for every word that a survey could find. Most messages of a channel
/// are chatter, and this search spares them the survey.
#[derive(Clone, Debug)]
pub(super) struct Prefilter(Option<Regex>);

impl Prefilter {
    /// Builds the search from the titles that are texts. A title that is a regular expression
    /// (`None`), or that has no word worth searching for, switches the prefilter off.
    pub(super) fn new<'t>(
        titles: impl Iterator<Item = Option<&'t str>>,
        fields: &'t FieldTitles,
    ) -> Self {
        let FieldTitles { script, risk, .. } = fields;
        // A word may be hidden by JSON escapes of its letters, such as `\u0043`, so a message with
        // such an escape always passes.
        let mut words = vec![r"\\u00".to_owned(), "perimeterx".into(), "humansecurity".into()];
        let named = titles.chain(script.iter().chain(risk).map(|title| Some(title.as_str())));
        for title in named {
            let word = title.and_then(longest_word);
            let Some(word) = word else { return Self(None) };
            words.push(regex::escape(word));
        }
        Self(Regex::new(&format!("(?i-u:{})", words.join("|"))).ok())
    }

    /// Returns whether the raw message may hold the title, a field or a console link of an
    /// incident.
    pub(super) fn may_hold(&self, raw: &str) -> bool {
        self.0.as_ref().is_none_or(|words| words.is_match(raw))
    }
}

/// Returns the longest word of ASCII letters and digits if it has at least three characters.
fn longest_word(title: &str) -> Option<&str> {
    let words = title.split(|char: char| !char.is_ascii_alphanumeric());
    words.max_by_key(|word| word.len()).filter(|word| word.len() >= 3)
}
