//! What a person sees: tables that fit the terminal, colour if it has any, ages, and texts that
//! cannot play tricks with it.

use std::{
    io::{IsTerminal, stderr, stdout},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthChar;

use super::environment;

/// A column is never made narrower than this.
const NARROWEST: usize = 12;

/// Between two columns.
const GAP: &str = "  ";

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Colour {
    /// The colour of a delivery's state, of a severity, or of an attempt's class.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "delivered" | "duplicate" => Self::Green,
            "dead" | "critical" | "refused" | "orphaned" => Self::Red,
            "pending" | "leased" | "paused" | "high" | "destination_fault" | "auth"
            | "throttled" | "timeout" => Self::Yellow,
            "cancelled" | "unrouted" | "informative" => Self::Dim,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }
}

/// How standard output is written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    colour: bool,
    /// Columns; none if it is no terminal: then nothing is cut.
    width: Option<usize>,
}

impl Screen {
    /// Standard output as it is.
    pub(super) fn new() -> Self {
        let is_terminal = stdout().is_terminal();
        let is_dumb = environment("TERM").is_some_and(|term| term == "dumb");
        let no_colour = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self {
            colour: is_terminal && !is_dumb && !no_colour,
            width: width.filter(|width| is_terminal && *width > 0),
        }
    }

    /// The text in that colour.
    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.colour || colour == Colour::Plain {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code())
    }

    /// Rows under a head. The last column is cut to what is left of the width.
    pub(super) fn table(self, head: &[&str], rows: &[Vec<(String, Colour)>]) -> String {
        let head: Vec<_> = head.iter().map(|cell| ((*cell).to_owned(), Colour::Bold)).collect();
        let all = || std::iter::once(&head).chain(rows);
        let columns = head.len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| all().filter_map(|row| row.get(at)).map(|cell| width(&cell.0)).max())
            .map(Option::unwrap_or_default)
            .collect();
        let before: usize = widths.iter().take(columns.saturating_sub(1)).map(|w| w + 2).sum();
        let room = self.width.map(|width| width.saturating_sub(before).max(NARROWEST));
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for (at, ((cell, colour), width_of_column)) in row.iter().zip(&widths).enumerate() {
                let is_last = at + 1 == columns;
                let cell = match room {
                    Some(room) if is_last => cut(cell, room),
                    Some(_) | None => cell.clone(),
                };
                line += &self.paint(*colour, &cell);
                if !is_last {
                    line += &" ".repeat(width_of_column.saturating_sub(width(&cell)));
                    line += GAP;
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text.pop();
        text
    }
}

/// A bar for bulk work on standard error; none if that is no terminal.
pub(super) fn progress(total: u64, what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}")
        .map_or_else(|_fixed| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

/// A turning sign on standard error while something is waited for.
pub(super) fn spinner(what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// A duration in its largest unit: `42s`, `7m`, `3h`, `12d`.
pub(super) fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The text without what a terminal would obey: control characters, and marks that turn the
/// direction of writing. Slack and a SOAR wrote it, not we.
pub(super) fn harmless(text: &str) -> String {
    const TURNS: [std::ops::RangeInclusive<char>; 3] =
        ['\u{200e}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    let turns = |c: char| TURNS.iter().any(|range| range.contains(&c));
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut left = room.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<(String, Colour)>> {
        let row = |age: &str, state: &str, text: &str| {
            vec![
                (age.to_owned(), Colour::Plain),
                (state.to_owned(), Colour::of(state)),
                (text.to_owned(), Colour::Plain),
            ]
        };
        vec![
            row("3m", "dead", "a rather long summary"),
            row("12h", "delivered", "渋谷のスクリプト"),
        ]
    }

    const HEAD: [&str; 3] = ["AGE", "STATE", "SUMMARY"];

    #[test]
    fn a_table_fits_the_terminal() {
        let screen = Screen { colour: false, width: Some(29) };
        insta::assert_snapshot!(screen.table(&HEAD, &rows()), @r"
        AGE  STATE      SUMMARY
        3m   dead       a rather lon…
        12h  delivered  渋谷のスクリ…
        ");
        let widest = screen.table(&HEAD, &rows()).lines().map(width).max();
        assert!(widest.is_some_and(|width| width <= 29), "{widest:?}");
    }

    #[test]
    fn a_table_for_a_file_is_whole_and_without_colour() {
        let screen = Screen { colour: false, width: None };
        let table = screen.table(&HEAD, &rows());
        assert!(table.contains("a rather long summary"), "{table}");
        assert!(!table.contains('\u{1b}'));
    }

    #[test]
    fn colour_does_not_move_the_columns() {
        let screen = Screen { colour: true, width: Some(80) };
        let table = screen.table(&HEAD, &rows());
        assert!(table.contains("\u{1b}[31mdead\u{1b}[0m       a rather"), "{table:?}");
    }

    #[test]
    fn a_text_cannot_play_tricks_with_the_terminal() {
        let text = "a\u{1b}[2Jb\rc\u{202e}d\u{7}";
        assert_eq!(harmless(text), "a [2Jb c d ");
    }

    #[test]
    fn ages_are_short() {
        let age = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([age(0), age(59), age(60)], ["0s", "59s", "1m"]);
        assert_eq!([age(7_200), age(172_800)], ["2h", "2d"]);
    }
}
