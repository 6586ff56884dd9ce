//! Incidents that do not have the shape that the vendor posts today. Whatever the vendor moves to,
//! such as Block Kit, the title, a link to the console and the fields are looked for everywhere.

use std::{borrow::Cow, collections::HashSet};

use regex::Regex;

use crate::{
    code_defender::{
        incident::{Incident, is_console, letters},
        matcher::{FieldTitles, Matcher},
    },
    slack::{
        layout::{Content, Layout, Piece},
        message::{Attachment, Button, Field},
        mrkdwn,
    },
};

/// Where in a message an incident is that has no attachment of the known shape: everywhere.
pub const WHOLE_MESSAGE: u32 = u32::MAX;

/// What a message says, wherever it says so.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The title stands in the post's own words.
    pub(super) has_title: bool,
    /// The title stands in what the post repeats: an unfurled page, a shared or quoted message.
    pub(super) quotes_title: bool,
    /// The post has a link to the console, or an incident's fields.
    pub(super) has_evidence: bool,
    /// The attachments that hold title and evidence each; [`WHOLE_MESSAGE`] if they are spread.
    pub(super) places: Vec<u32>,
}

/// Finds out with one search whether a message can hold anything that a survey looks for.
#[derive(Clone, Debug)]
pub(super) struct Prefilter(Option<Regex>);

impl Prefilter {
    /// `titles` are those that are texts; with a regular expression among them nothing is certain
    /// before the survey.
    pub(super) fn new<'t>(
        titles: impl Iterator<Item = Option<&'t str>>,
        fields: &'t FieldTitles,
    ) -> Self {
        let FieldTitles { script, risk, .. } = fields;
        // JSON may write any character as an escape, and Slack writes those beyond ASCII so.
        let mut words = vec![r"\\u00".to_owned(), "perimeterx".into(), "humansecurity".into()];
        let named = titles.chain(script.iter().chain(risk).map(|title| Some(title.as_str())));
        for title in named {
            let word = title.and_then(longest_word);
            let Some(word) = word else { return Self(None) };
            words.push(regex::escape(word));
        }
        Self(Regex::new(&format!("(?i-u:{})", words.join("|"))).ok())
    }

    pub(super) fn may_hold(&self, raw: &str) -> bool {
        self.0.as_ref().is_none_or(|words| words.is_match(raw))
    }
}

/// The longest word of ASCII letters and digits. It must be worth searching for.
fn longest_word(title: &str) -> Option<&str> {
    let words = title.split(|char: char| !char.is_ascii_alphanumeric());
    words.max_by_key(|word| word.len()).filter(|word| word.len() >= 3)
}

impl Matcher {
    /// Looks for title, link and fields in everything that a message says.
    pub(super) fn survey(&self, layout: &Layout<'_>) -> Survey {
        let mut survey = Survey::default();
        let mut places: Vec<u32> = Vec::new();
        for piece in &layout.pieces {
            if let Some(place) = piece.attachment
                && places.last() != Some(&place)
            {
                places.push(place);
            }
            for text in texts(piece) {
                let own: String = own_lines(text).collect::<Vec<_>>().join("\n");
                survey.has_title |= !piece.is_quoted && self.finds_title(&own);
                survey.quotes_title |= self.finds_title(text);
            }
        }
        survey.has_evidence = self.has_evidence(layout, WHOLE_MESSAGE);
        if survey.has_title && survey.has_evidence {
            let is_whole =
                |place: &u32| self.is_titled(layout, *place) && self.has_evidence(layout, *place);
            survey.places = places.into_iter().filter(is_whole).collect();
            if survey.places.is_empty() {
                survey.places.push(WHOLE_MESSAGE);
            }
        }
        survey
    }

    /// Reads an incident from everything that an attachment, or the whole message, says.
    pub(super) fn elsewhere(&self, layout: &Layout<'_>, place: u32) -> Incident {
        let titles = self.field_titles();
        let mut attachment = Attachment::default();
        let mut details: Vec<String> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut titled: Vec<String> = Vec::new();
        for piece in own_pieces(layout, place) {
            match &piece.content {
                Content::Field { title, value } => {
                    attachment.fields.push(Field { title: title.clone(), value: value.clone() });
                }
                Content::Link { url, label, is_button } => {
                    if *is_button || is_console(url) {
                        attachment.actions.push(Button { text: label.clone(), url: url.clone() });
                    }
                }
                Content::Heading(text)
                | Content::Body(text)
                | Content::Cell(text)
                | Content::Aside(text) => {
                    let is_body = matches!(piece.content, Content::Body(_));
                    let read = read_lines(&own_text(text), titles);
                    for field in read.fields {
                        attachment.fields.push(field);
                    }
                    for link in console_links(text) {
                        attachment.actions.push(link);
                    }
                    for line in read.rest {
                        if self.finds_title(&line) {
                            titled.push(line);
                        } else if is_body && !is_link_alone(&line) && seen.insert(line.clone()) {
                            details.push(line);
                        }
                    }
                }
            }
        }
        let is_bare = |line: &String| self.is_title(&mrkdwn::label(line));
        let title = titled.iter().find(|line| is_bare(line));
        attachment.title = match title.map(|line| mrkdwn::label(line).into_owned()) {
            Some(title) => title.into(),
            None => self.title_in(&titled).into(),
        };
        if details.iter().all(|line| line.trim().is_empty()) {
            // The title's own line is all there is, with something beside it perhaps.
            details = titled.iter().filter(|line| !is_bare(line)).take(1).cloned().collect();
        }
        attachment.text = details.join("\n").into();
        Incident { layout: true, ..Incident::read(&attachment, titles) }
    }

    /// Whether the title stands in the own words of an attachment, or of the whole message.
    pub(super) fn is_titled(&self, layout: &Layout<'_>, place: u32) -> bool {
        let mut texts = own_pieces(layout, place).flat_map(texts);
        texts.any(|text| self.finds_title(&own_text(text)))
    }

    fn has_evidence(&self, layout: &Layout<'_>, place: u32) -> bool {
        let FieldTitles { script, risk, host } = self.field_titles();
        let mut structured = [false; 3];
        let mut written = [false; 3];
        let lists = [script, risk, host];
        let note = |found: &mut [bool; 3], title: &str| {
            for (found, titles) in found.iter_mut().zip(lists) {
                *found |= is_one_of(title, titles);
            }
        };
        for piece in own_pieces(layout, place) {
            match &piece.content {
                Content::Link { url, .. } if is_console(url) => return true,
                Content::Link { .. } => {}
                Content::Field { title, .. } => note(&mut structured, title),
                Content::Cell(text) => {
                    let fields = read_lines(text, self.field_titles()).fields;
                    for field in &fields {
                        note(&mut structured, &field.title);
                    }
                }
                Content::Heading(text) | Content::Body(text) | Content::Aside(text) => {
                    let text = own_text(text);
                    if console_links(&text).next().is_some() {
                        return true;
                    }
                    let fields = read_lines(&text, self.field_titles()).fields;
                    for field in &fields {
                        note(&mut written, &field.title);
                    }
                }
            }
        }
        let [script, risk, host] = structured;
        let written = written.iter().zip(structured).filter(|(written, own)| **written || *own);
        // One label in running text may be anybody's.
        script || (risk && host) || written.count() >= 2
    }

    /// Whether the title stands somewhere in a text, whatever is around it.
    fn finds_title(&self, text: &str) -> bool {
        if text.is_empty() {
            return false;
        }
        let shown = mrkdwn::label(text);
        let flat = flat(&shown);
        self.titles().any(|(pattern, needle)| match needle {
            Some(needle) => flat.contains(needle),
            None => text.lines().any(|line| pattern.matches(&mrkdwn::unescape(line))),
        })
    }

    /// The configured title that one of the lines holds, or else the line.
    fn title_in(&self, lines: &[String]) -> String {
        let held = lines.iter().find_map(|line| {
            let flat = flat(&mrkdwn::label(line));
            self.titles().find_map(|(pattern, needle)| {
                needle.filter(|needle| flat.contains(needle)).and_then(|_| pattern.as_text())
            })
        });
        held.map(str::to_owned)
            .or_else(|| lines.first().map(|line| mrkdwn::label(line).into_owned()))
            .or_else(|| self.titles().find_map(|(pattern, _)| pattern.as_text()).map(str::to_owned))
            .unwrap_or_default()
    }
}

/// The letters of a text without the marks of emphasis, to be searched in.
pub(super) fn flat(text: &str) -> String {
    let words: String = text.chars().filter(|char| !"*_~`".contains(*char)).collect();
    letters(&words).collect::<String>().trim_end().to_owned()
}

/// The pieces of an attachment, or of the whole message, that are the post's own.
fn own_pieces<'l, 'a>(layout: &'l Layout<'a>, place: u32) -> impl Iterator<Item = &'l Piece<'a>> {
    layout.pieces.iter().filter(move |piece| {
        !piece.is_quoted && (place == WHOLE_MESSAGE || piece.attachment == Some(place))
    })
}

fn texts<'p>(piece: &'p Piece<'_>) -> impl Iterator<Item = &'p str> {
    let texts: [&str; 2] = match &piece.content {
        Content::Heading(text)
        | Content::Body(text)
        | Content::Cell(text)
        | Content::Aside(text) => [text, ""],
        Content::Field { title, value } => [title, value],
        Content::Link { label, .. } => [label, ""],
    };
    texts.into_iter().filter(|text| !text.is_empty())
}

/// The lines that are not marked as quoted.
fn own_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("&gt;") && !line.starts_with('>'))
}

fn own_text(text: &str) -> String {
    own_lines(text).collect::<Vec<_>>().join("\n")
}

/// What the lines of a text hold.
struct Lines {
    fields: Vec<Field<'static>>,
    /// The lines that belong to no field.
    rest: Vec<String>,
}

/// What lists are written with.
const BULLETS: &str = "\u{2022}-\u{2013}\u{25e6}\u{25aa}";

/// Finds the fields of a text: `*Script:* value`, or the heading on a line of its own.
fn read_lines(text: &str, titles: &FieldTitles) -> Lines {
    let FieldTitles { script, risk, host } = titles;
    let is_known = |label: &str| [script, risk, host].iter().any(|titles| is_one_of(label, titles));
    let mut read = Lines { fields: Vec::new(), rest: Vec::new() };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let bare =
            line.trim_start_matches(|char: char| char.is_whitespace() || BULLETS.contains(char));
        let beside = bare.split_once(':').map(|(label, value)| {
            (mrkdwn::label(label), value.trim_start_matches(['*', '_', '~', ' ', '\t']))
        });
        if let Some((label, value)) = beside
            && !value.is_empty()
            && is_known(&label)
        {
            read.fields.push(field(&label, &reopened(bare, value)));
        } else if is_known(&mrkdwn::label(bare)) {
            let is_value = |next: &&str| !next.trim().is_empty() && !is_known(&mrkdwn::label(next));
            let value = lines.next_if(is_value).unwrap_or_default();
            read.fields.push(field(&mrkdwn::label(bare), value));
        } else {
            read.rest.push(line.to_owned());
        }
    }
    read
}

/// A value whose opening mark was taken with the label's closing one gets it back.
fn reopened(line: &str, value: &str) -> String {
    let mark = value.chars().next_back().filter(|char| "*_~".contains(*char));
    match mark {
        Some(mark) if value.matches(mark).count() % 2 == 1 && line.matches(mark).count() >= 2 => {
            format!("{mark}{value}")
        }
        Some(_) | None => value.to_owned(),
    }
}

fn field(title: &str, value: &str) -> Field<'static> {
    Field { title: Cow::Owned(title.to_owned()), value: Cow::Owned(value.to_owned()) }
}

fn is_one_of(label: &str, titles: &[String]) -> bool {
    let label = flat(&mrkdwn::label(label));
    titles.iter().any(|title| flat(title) == label)
}

/// The links to the console that stand in a text.
fn console_links(text: &str) -> impl Iterator<Item = Button<'static>> + use<'_> {
    let is_end = |char: char| char.is_whitespace() || "<>|\"'()`".contains(char);
    text.split(is_end).filter(|word| word.starts_with("http") && is_console(word)).map(|url| {
        Button { text: Cow::Borrowed(""), url: Cow::Owned(mrkdwn::unescape(url).into_owned()) }
    })
}

/// Whether a line holds nothing but a link, which is a button in all but its shape.
fn is_link_alone(line: &str) -> bool {
    let line = mrkdwn::trim(line);
    let inside = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    inside.is_some_and(|inside| inside.starts_with("http") && !inside.contains('<'))
}

#[cfg(test)]
mod tests;
