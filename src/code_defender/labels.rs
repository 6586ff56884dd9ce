//! Comparison of titles and labels, which Slack and the vendor may decorate.

use crate::slack::mrkdwn;

/// Returns whether a posted title equals a configured one, ignoring case, markup, blanks and a
/// closing colon.
pub(super) fn same_title(posted: &str, wanted: &str) -> bool {
    same_label(&mrkdwn::label(posted), &mrkdwn::label(wanted))
}

/// Compares like [`same_title`], for two titles whose markup is removed already.
pub(super) fn same_label(label: &str, wanted: &str) -> bool {
    label.eq_ignore_ascii_case(wanted) || letters(label).eq(letters(wanted))
}

/// Returns whether a label equals one of the titles, ignoring marks of emphasis inside it too.
pub(super) fn is_one_of(label: &str, titles: &[String]) -> bool {
    let label = flat(&mrkdwn::label(label));
    titles.iter().any(|title| flat(title) == label)
}

/// Returns a text in lower case, without marks of emphasis and with one space for every gap: a form
/// in which a title can be searched for.
pub(super) fn flat(text: &str) -> String {
    let words: String = text.chars().filter(|char| !"*_~`".contains(*char)).collect();
    letters(&words).collect::<String>().trim_end().to_owned()
}

/// Returns the letters in lower case, with one space for every gap.
fn letters(text: &str) -> impl Iterator<Item = char> {
    let words = text.split(char::is_whitespace).filter(|word| !word.is_empty());
    let spaced = words.flat_map(|word| word.chars().chain([' ']));
    spaced.filter(|char| *char == ' ' || !mrkdwn::is_blank(*char)).flat_map(char::to_lowercase)
}
