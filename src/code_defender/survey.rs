//! Search of a whole message for incidents that do not have the layout that the vendor posts today.
//! Title, console link and fields are found in any layout, such as Block Kit.

use std::{borrow::Cow, collections::HashSet};

use super::{
    incident::Incident,
    labels::{flat, is_one_of},
    links::is_console,
    settings::{FieldTitles, MatchSettings, TitlePattern},
    verdict::WHOLE_MESSAGE,
};
use crate::slack::{
    layout::{Content, Layout, Piece},
    message::{Attachment, Button, Field},
    mrkdwn,
};

/// Parts of an incident that were found in a message.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The title is in the post's own words.
    pub(super) has_title: bool,
    /// The title is in something the post repeats: an unfurled page, a shared or quoted message.
    pub(super) quotes_title: bool,
    /// The post has a link to the console, or the fields of an incident.
    pub(super) has_evidence: bool,
    /// Indices of the attachments that hold both title and evidence; [`WHOLE_MESSAGE`] alone if
    /// title and evidence are spread over the message.
    pub(super) places: Vec<u32>,
}

/// Searches messages for the configured titles.
#[derive(Clone, Debug)]
pub(super) struct Surveyor {
    settings: MatchSettings,
    /// For each title the flattened text to search for; `None` for a regular expression.
    needles: Vec<Option<String>>,
}

impl Surveyor {
    pub(super) fn new(settings: MatchSettings) -> Self {
        let needle = |title: &str| flat(&mrkdwn::label(title));
        let texts = settings.titles.iter().map(TitlePattern::as_text);
        let needles = texts.map(|title| title.map(needle)).collect();
        Self { settings, needles }
    }

    /// Returns the configured titles of fields.
    pub(super) fn field_titles(&self) -> &FieldTitles {
        &self.settings.fields
    }

    /// Returns whether a title is one of incidents. Entities in `title` must be decoded.
    pub(super) fn is_title(&self, title: &str) -> bool {
        self.settings.titles.iter().any(|pattern| pattern.matches(title))
    }

    /// Searches everything that a message says for title, console link and fields.
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
            // Each attachment with both is an incident of its own. If there is none, the parts of
            // one incident are spread over the message.
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
    pub(super) fn read_anywhere(&self, layout: &Layout<'_>, place: u32) -> Incident {
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
        // A line that is the title and nothing else beats one that merely contains the title.
        let is_bare = |line: &String| self.is_title(&mrkdwn::label(line));
        let title = titled.iter().find(|line| is_bare(line));
        attachment.title = match title.map(|line| mrkdwn::label(line).into_owned()) {
            Some(title) => title.into(),
            None => self.title_in(&titled).into(),
        };
        if details.iter().all(|line| line.trim().is_empty()) {
            // The message has no other text than the title's line: the rest of that line is the
            // best description there is.
            details = titled.iter().filter(|line| !is_bare(line)).take(1).cloned().collect();
        }
        attachment.text = details.join("\n").into();
        Incident { is_new_layout: true, ..Incident::read(&attachment, titles) }
    }

    /// Returns whether the title is in the own words of an attachment, or of the whole message.
    pub(super) fn is_titled(&self, layout: &Layout<'_>, place: u32) -> bool {
        let mut texts = own_pieces(layout, place).flat_map(texts);
        texts.any(|text| self.finds_title(&own_text(text)))
    }

    /// Returns whether an attachment, or the whole message, has a console link or enough fields.
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
        // A single label in running text proves nothing: people write `Script: ...` too.
        script || (risk && host) || written.count() >= 2
    }

    /// Returns whether a text contains the title.
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

    /// Returns the configured title that one of the lines contains; else the first line; else the
    /// first configured title.
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

    /// Returns the titles of incidents, each with its needle unless it is a regular expression.
    fn titles(&self) -> impl Iterator<Item = (&TitlePattern, Option<&str>)> {
        self.settings.titles.iter().zip(self.needles.iter().map(Option::as_deref))
    }
}

/// Returns the pieces of an attachment, or of the whole message, that are not quoted.
fn own_pieces<'l, 'a>(layout: &'l Layout<'a>, place: u32) -> impl Iterator<Item = &'l Piece<'a>> {
    layout.pieces.iter().filter(move |piece| {
        !piece.is_quoted && (place == WHOLE_MESSAGE || piece.attachment == Some(place))
    })
}

/// Returns the texts of a piece that are not empty.
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

/// Returns the lines that are not marked as quoted.
fn own_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("&gt;") && !line.starts_with('>'))
}

fn own_text(text: &str) -> String {
    own_lines(text).collect::<Vec<_>>().join("\n")
}

/// Fields and other lines of a text.
struct TextLines {
    /// Fields that are written as text.
    fields: Vec<Field<'static>>,
    /// Lines that are not part of a field.
    rest: Vec<String>,
}

/// Characters with which list items begin.
const BULLETS: &str = "\u{2022}-\u{2013}\u{25e6}\u{25aa}";

/// Finds the fields of a text: `*Script:* value`, or the title and the value on two lines.
fn read_lines(text: &str, titles: &FieldTitles) -> TextLines {
    let FieldTitles { script, risk, host } = titles;
    let is_known = |label: &str| [script, risk, host].iter().any(|titles| is_one_of(label, titles));
    let mut read = TextLines { fields: Vec::new(), rest: Vec::new() };
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
            // A title without a value is followed by the next field, which is not its value.
            let is_value = |next: &&str| !next.trim().is_empty() && !is_known(&mrkdwn::label(next));
            let value = lines.next_if(is_value).unwrap_or_default();
            read.fields.push(field(&mrkdwn::label(bare), value));
        } else {
            read.rest.push(line.to_owned());
        }
    }
    read
}

/// Restores the opening mark of a value from which it was trimmed together with the closing mark of
/// the label.
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

/// Returns the links to the console in a text.
fn console_links(text: &str) -> impl Iterator<Item = Button<'static>> + use<'_> {
    let is_end = |char: char| char.is_whitespace() || "<>|\"'()`".contains(char);
    text.split(is_end).filter(|word| word.starts_with("http") && is_console(word)).map(|url| {
        Button { text: Cow::Borrowed(""), url: Cow::Owned(mrkdwn::unescape(url).into_owned()) }
    })
}

/// Returns whether a line is nothing but a link, which serves as a button.
fn is_link_alone(line: &str) -> bool {
    let line = mrkdwn::trim(line);
    let inside = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    inside.is_some_and(|inside| inside.starts_with("http") && !inside.contains('<'))
}

#[cfg(test)]
mod tests;
