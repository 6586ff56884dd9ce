//! Output for a terminal: tables that fit its width, colours, and texts with control characters
//! escaped.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthChar;

use super::environment::environment;
use crate::logging::escape;

/// Minimum width of a column that is cut.
const NARROWEST: usize = 10;

/// Number of columns, from the right, that may be cut.
const CUT_COLUMNS: usize = 2;

/// Width that every terminal has.
const PLAIN_WIDTH: usize = 80;

/// Space between two columns.
const GAP: &str = "  ";

/// A colour of the terminal's palette.
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
    /// Returns the colour of a delivery's state, a severity, or an attempt's class.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "delivered" | "duplicate" | "ok" => Self::Green,
            "dead" | "critical" | "refused" | "orphaned" | "failing" => Self::Red,
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

/// Codes that [`Screen::paint`] writes after `ESC [`.
const CODES: [&str; 6] = ["0m", "1m", "2m", "31m", "32m", "33m"];

/// Capabilities of standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    colour: bool,
    /// Number of columns; `None` without a terminal, where nothing is cut.
    width: Option<usize>,
}

impl Screen {
    /// Detects the capabilities of standard output.
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

    /// Detects the capabilities, and limits the width to [`PLAIN_WIDTH`] even without a terminal.
    pub(super) fn narrow() -> Self {
        let screen = Self::new();
        let width = screen.width.unwrap_or(PLAIN_WIDTH).min(PLAIN_WIDTH);
        Self { width: Some(width), ..screen }
    }

    /// Wraps a text to the width. The first line starts with `first`, the others with `indent`.
    /// Words that are longer than a line, such as URLs, are not broken.
    pub(super) fn wrapped(self, first: &str, indent: &str, text: &str) -> String {
        let room = self.width.unwrap_or(usize::MAX);
        let mut lines = String::new();
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in harmless(text).split_whitespace() {
            if !is_empty && width(&line) + 1 + width(word) > room {
                lines += &line;
                lines.push('\n');
                indent.clone_into(&mut line);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line += word;
            is_empty = false;
        }
        lines + &line
    }

    /// Clears the terminal. Without a terminal, writes an empty line between two screens.
    pub(super) fn clear() {
        if stdout().is_terminal() {
            drop(write!(stdout(), "\u{1b}[H\u{1b}[2J"));
        } else {
            drop(writeln!(stdout()));
        }
    }

    /// Returns the text in a colour, if the terminal has colours.
    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if !self.colour || colour == Colour::Plain {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code())
    }

    /// Formats rows below a header. On a terminal, columns are cut from the right to fit the width.
    pub(super) fn table(self, head: &[&str], rows: &[Vec<(String, Colour)>]) -> String {
        let head: Vec<_> = head.iter().map(|cell| ((*cell).to_owned(), Colour::Bold)).collect();
        let all = || std::iter::once(&head).chain(rows);
        let columns = head.len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                all().filter_map(|row| row.get(at)).map(|cell| width(&harmless(&cell.0))).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let widths = self.width.map_or(widths.clone(), |room| fitted(widths, room));
        let mut text = String::new();
        for row in all() {
            let mut line = String::new();
            for (at, ((cell, colour), width_of_column)) in row.iter().zip(&widths).enumerate() {
                let is_last = at + 1 == columns;
                let cell = harmless(cell);
                let cell = if self.width.is_some() { cut(&cell, *width_of_column) } else { cell };
                line += &self.paint(*colour, &cell);
                if !is_last {
                    // Added after painting and counted without the colour codes, which take no
                    // room.
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

/// Narrows the last [`CUT_COLUMNS`] columns, the last one first, until the table fits. The other
/// columns keep their width, since an id that is cut is useless.
fn fitted(mut widths: Vec<usize>, room: usize) -> Vec<usize> {
    let total = |widths: &[usize]| {
        widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
    };
    for at in (0..widths.len()).rev().take(CUT_COLUMNS) {
        let excess = total(&widths).saturating_sub(room);
        if let Some(width) = widths.get_mut(at) {
            *width = width.saturating_sub(excess).max((*width).min(NARROWEST));
        }
    }
    widths
}

/// Shows a progress bar on standard error, if standard error is a terminal.
pub(super) fn progress(total: u64, what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}")
        .map_or_else(|_fixed| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

/// Shows a spinner on standard error, if standard error is a terminal.
pub(super) fn spinner(what: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Indents JSON like [`serde_json::to_string_pretty`], but keeps the order of keys and the form of
/// numbers.
pub(super) fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut is_escaped = false;
    let mut characters = json.trim().chars().peekable();
    let break_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = characters.next() {
        // Brackets and commas inside a string are text, and so is an escaped quotation mark.
        if in_string {
            out.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                // An empty list or object stays on its line.
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

/// Escapes control characters, line breaks included, in a text from Slack or a SOAR.
pub(super) fn harmless(text: &str) -> String {
    escape::escaped(text)
}

/// Escapes control characters in lines of output, except line breaks, tabs and the colour codes of
/// [`Screen::paint`].
pub(super) fn safe(text: &str) -> String {
    safe_for(Screen::new(), text)
}

fn safe_for(screen: Screen, text: &str) -> String {
    let is_colour = |rest: &&str| CODES.iter().any(|code| rest.starts_with(code));
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(escape::is_harmful) {
        let (plain, harmful) = rest.split_at(at);
        safe += plain;
        // Only the codes that `paint` writes may pass: other sequences move the cursor, clear the
        // screen or rename the window.
        let colour = harmful.strip_prefix("\u{1b}[").filter(is_colour).filter(|_| screen.colour);
        let end = match colour {
            Some(code) => harmful.len() - code.len() + code.find('m').map_or(0, |end| end + 1),
            None => harmful.chars().next().map_or(0, char::len_utf8),
        };
        let (first, after) = harmful.split_at(end);
        if colour.is_some() || ["\n", "\t"].contains(&first) {
            safe += first;
        } else {
            safe += &escape::escaped(first);
        }
        rest = after;
    }
    safe + rest
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Cuts a text to a width, and marks the cut with an ellipsis.
pub(super) fn cut(text: &str, room: usize) -> String {
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
    fn a_list_of_alerts_fits_eighty_columns_and_keeps_ids_whole() {
        let id = "main:C0123456789:1600689944.000500:0";
        let cells =
            ["12h", "informative", id, "soar pending, backup delivered", "a script of theirs"];
        let row = cells.map(|cell| (cell.to_owned(), Colour::Plain)).to_vec();
        let head = ["AGE", "SEVERITY", "ID", "DELIVERIES", "SUMMARY"];
        let table = Screen { colour: false, width: Some(80) }.table(&head, &[row]);
        assert!(table.lines().all(|line| width(line) <= 80), "{table}");
        assert!(table.contains(id), "{table}");
    }

    #[test]
    fn a_table_that_is_not_for_a_terminal_is_not_cut_or_coloured() {
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
    fn control_characters_are_escaped() {
        let text = "a\u{1b}[2Jb\rc\u{202e}d\u{7}";
        assert_eq!(harmless(text), r"a\u001b[2Jb\rc\u202ed\u0007");
        let lines = "\u{1b}[31mdead\u{1b}[0m\t\u{1b}[2Jx\n\u{9b}1m";
        let plain = Screen { colour: false, width: None };
        assert_eq!(safe_for(plain, lines), "\\u001b[31mdead\\u001b[0m\t\\u001b[2Jx\n\\u009b1m");
        let painted = safe_for(Screen { colour: true, ..plain }, lines);
        assert_eq!(painted, "\u{1b}[31mdead\u{1b}[0m\t\\u001b[2Jx\n\\u009b1m");
    }

    #[test]
    fn json_is_indented_as_serde_does_and_keeps_keys_and_numbers() {
        let text = r#"{"b":[],"a":{"x":[1,2.50,{}],"y":"a\"b\\ , : {"},"c":null,"d":[{"e":true}]}"#;
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let ours: serde_json::Value = serde_json::from_str(&indented(text)).unwrap();
        assert_eq!(value, ours);
        let sorted = r#"{"a":{"x":[1,2,{}],"y":"a\"b\\ , : {"},"b":[],"d":[{"e":true}]}"#;
        let value: serde_json::Value = serde_json::from_str(sorted).unwrap();
        assert_eq!(indented(sorted), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(indented(&indented(text)), indented(text));
        assert!(indented(text).contains("2.50"), "{}", indented(text));
    }
}
