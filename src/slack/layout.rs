//! All texts and links of a message, wherever they are: blocks, rich text, fallbacks, authors.
//!
//! `code_defender` looks here if the attachments, as the vendor posts them today, do not hold an
//! incident. A message is walked once without building a tree: each text is borrowed, unless it has
//! escapes or was joined from several.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

mod join;
mod take;

use self::take::OrTake;
use super::lenient::{Fill, read};
use crate::slack::Unparsable;

/// Texts and links of a message, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout<'a> {
    /// At most [`Layout::MOST_PIECES`] pieces.
    pub pieces: Vec<Piece<'a>>,
}

/// One text or link of a message.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Index of the attachment that holds the piece; `None` outside attachments.
    pub attachment: Option<u32>,
    /// `true` if the piece repeats something said elsewhere: an unfurled page, a shared or quoted
    /// message.
    pub is_quoted: bool,
    /// The text or link itself.
    pub content: Content<'a>,
}

/// Content of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A title, such as that of an attachment or of a header block.
    Heading(Cow<'a, str>),
    /// Running text, in mrkdwn.
    Body(Cow<'a, str>),
    /// A cell of a section's table: its heading and its value on lines of their own.
    Cell(Cow<'a, str>),
    /// Any other text: a fallback, an author, a footer, an image's description.
    Aside(Cow<'a, str>),
    /// A cell of an attachment's table.
    Field {
        /// Heading of the cell.
        title: Cow<'a, str>,
        /// Value of the cell, in mrkdwn.
        value: Cow<'a, str>,
    },
    /// A button or another link.
    Link {
        /// URL of the link.
        url: Cow<'a, str>,
        /// Text of the link, or empty.
        label: Cow<'a, str>,
        /// `true` for a button, which its author put there to be pressed.
        is_button: bool,
    },
}

impl Layout<'_> {
    /// Number of pieces that are kept at most. Slack takes 100 attachments and 50 blocks in a
    /// message.
    pub const MOST_PIECES: usize = 4_000;
}

/// Depth of nested objects and lists down to which a message is walked. Slack nests less than ten.
const MAX_DEPTH: u8 = 64;

/// Parses the inner event as it is stored: of an edit, the message as edited.
///
/// # Errors
/// [`Unparsable`] if it is not one JSON object.
pub fn parse(raw: &str, is_edit_event: bool) -> Result<Layout<'_>, Unparsable> {
    if !raw.trim_start().starts_with('{') {
        return Err(Unparsable);
    }
    let mut layout = Layout::default();
    let position = if is_edit_event { Position::Event } else { Position::Message };
    let walk =
        Walk { layout: &mut layout, position, role: Role::Aside, attachment: None, depth: 0 };
    let mut json = serde_json::Deserializer::from_str(raw);
    walk.deserialize(&mut json).map_err(|_syntax| Unparsable)?;
    Ok(layout)
}

/// Position of a walk, as far as keys have a meaning of their own there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// The event of an edit, in which only the message inside counts.
    Event,
    /// The object of the message itself.
    Message,
    /// The list of the message's attachments.
    Attachments,
    /// The rows of a table.
    Rows,
    /// The cells of a row.
    Row,
    /// Any other object or list inside.
    Inside,
}

/// Meaning of the texts under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Heading,
    Body,
    Cell,
    Aside,
}

struct Walk<'l, 'de> {
    layout: &'l mut Layout<'de>,
    position: Position,
    role: Role,
    attachment: Option<u32>,
    depth: u8,
}

/// Keys of one object that give its texts a meaning.
#[derive(Default)]
struct Own<'de> {
    kind: Cow<'de, str>,
    url: Cow<'de, str>,
    title: Option<Cow<'de, str>>,
    value: Option<Cow<'de, str>>,
    is_quoted: bool,
}

/// Keys whose values are not a part of the post's text: ids, people, earlier versions, reactions.
const SKIPPED: [&str; 21] = [
    "previous_message",
    "root",
    "bot_profile",
    "user_profile",
    "icons",
    "reactions",
    "edited",
    "reply_users",
    "ts",
    "event_ts",
    "thread_ts",
    "channel",
    "team",
    "user",
    "id",
    "block_id",
    "action_id",
    "callback_id",
    "client_msg_id",
    "mrkdwn_in",
    "username",
];

impl<'de> Walk<'_, 'de> {
    fn inside(&mut self, position: Position, role: Role, attachment: Option<u32>) -> Walk<'_, 'de> {
        Walk { layout: &mut *self.layout, position, role, attachment, depth: self.depth + 1 }
    }

    fn push(&mut self, content: Content<'de>) {
        if self.layout.pieces.len() < Layout::MOST_PIECES {
            let attachment = self.attachment;
            self.layout.pieces.push(Piece { attachment, is_quoted: false, content });
        }
    }

    fn push_text(&mut self, text: Cow<'de, str>) {
        if text.is_empty() {
            return;
        }
        self.push(match self.role {
            Role::Heading => Content::Heading(text),
            Role::Body => Content::Body(text),
            Role::Cell => Content::Cell(text),
            Role::Aside if is_url(&text) => {
                Content::Link { url: text, label: Cow::default(), is_button: false }
            }
            Role::Aside => Content::Aside(text),
        });
    }

    fn key<A: MapAccess<'de>>(
        &mut self,
        key: &str,
        own: &mut Own<'de>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match (self.position, key) {
            (Position::Event, "message") => {
                return object.next_value_seed(self.inside(Position::Message, Role::Aside, None));
            }
            (Position::Event, _) | (Position::Message, "message") => {
                return object.next_value::<IgnoredAny>().map(drop);
            }
            (Position::Message, "attachments") => {
                return object.next_value_seed(self.inside(
                    Position::Attachments,
                    Role::Aside,
                    None,
                ));
            }
            (_, "rows") => {
                return object.next_value_seed(self.inside(
                    Position::Rows,
                    Role::Aside,
                    self.attachment,
                ));
            }
            (
                Position::Message
                | Position::Attachments
                | Position::Rows
                | Position::Row
                | Position::Inside,
                _,
            ) => {}
        }
        match key {
            key if SKIPPED.contains(&key) => object.next_value::<IgnoredAny>().map(drop),
            "type" => read(object, &mut own.kind),
            "url" => read(object, &mut own.url),
            "from_url" | "original_url" => {
                let mut url = Cow::default();
                read(object, &mut url)?;
                own.is_quoted |= !url.is_empty();
                Ok(())
            }
            "message_blocks" => {
                own.is_quoted = true;
                object.next_value::<IgnoredAny>().map(drop)
            }
            _ if key == "is_share" || (key.starts_with("is_") && key.ends_with("_unfurl")) => {
                let mut flag = false;
                read(object, &mut flag)?;
                own.is_quoted |= flag;
                Ok(())
            }
            "title" => {
                let mut title = Cow::default();
                let before = self.layout.pieces.len();
                self.text_or_more(Role::Heading, &mut title, object)?;
                if self.layout.pieces.len() == before {
                    own.title = Some(title);
                }
                Ok(())
            }
            "value" => {
                let mut value = Cow::default();
                self.text_or_more(Role::Aside, &mut value, object)?;
                own.value = Some(value);
                Ok(())
            }
            "text" => {
                // A text object has the role of its surroundings.
                let role = if self.role == Role::Aside { Role::Body } else { self.role };
                object.next_value_seed(self.inside(Position::Inside, role, self.attachment))
            }
            "fields" => {
                object.next_value_seed(self.inside(Position::Inside, Role::Cell, self.attachment))
            }
            _ => {
                object.next_value_seed(self.inside(Position::Inside, Role::Aside, self.attachment))
            }
        }
    }

    /// Reads a text, or walks through an object or list in its place.
    fn text_or_more<A: MapAccess<'de>>(
        &mut self,
        role: Role,
        text: &mut Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let is_too_deep = self.depth >= MAX_DEPTH;
        let attachment = self.attachment;
        let visitor =
            if is_too_deep { None } else { Some(self.inside(Position::Inside, role, attachment)) };
        object.next_value_seed(OrTake { visitor, text })
    }

    /// Gives the texts of an object the meaning that its type and its other keys have.
    fn close(&mut self, own: Own<'de>, start: usize) {
        // Keys come in any order, so a text's meaning is known only at the end of its object.
        match (own.title, own.value) {
            (Some(title), Some(value)) => self.push(Content::Field { title, value }),
            (Some(title), None) if !title.is_empty() => self.push(Content::Heading(title)),
            (Some(_), None) | (None, _) => {}
        }
        match &*own.kind {
            "header" => self.change_bodies(start, Content::Heading),
            "context" => self.change_bodies(start, Content::Aside),
            "rich_text_section" | "rich_text_preformatted" | "rich_text_quote" => self.join(start),
            _ => {}
        }
        if is_url(&own.url) {
            let label = self.label(start);
            let is_button = own.kind == "button";
            self.push(Content::Link { url: own.url, label, is_button });
        } else if matches!(&*own.kind, "button" | "overflow") {
            drop(self.label(start));
        }
        if own.is_quoted || own.kind == "rich_text_quote" {
            for piece in self.layout.pieces.iter_mut().skip(start) {
                piece.is_quoted = true;
            }
        }
    }

    /// Gives every body text since `start` another meaning.
    fn change_bodies(&mut self, start: usize, meaning: fn(Cow<'de, str>) -> Content<'de>) {
        for piece in self.layout.pieces.iter_mut().skip(start) {
            if let Content::Body(text) = &mut piece.content {
                piece.content = meaning(std::mem::take(text));
            }
        }
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return IgnoredAny::deserialize(json).map(drop);
        }
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<(), E> {
        self.push_text(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.push_text(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_i64<E: Error>(self, _number: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _number: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _number: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _flag: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let start = self.layout.pieces.len();
        let mut at = 0_u32;
        loop {
            let (position, attachment) = match self.position {
                Position::Attachments => (Position::Inside, Some(at)),
                Position::Rows => (Position::Row, self.attachment),
                Position::Event | Position::Message | Position::Row | Position::Inside => {
                    (Position::Inside, self.attachment)
                }
            };
            let role = self.role;
            if list.next_element_seed(self.inside(position, role, attachment))?.is_none() {
                if self.position == Position::Row {
                    self.join_cells(start);
                }
                return Ok(());
            }
            at = at.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        let start = self.layout.pieces.len();
        let mut own = Own::default();
        let mut key = Cow::default();
        while object.next_key_seed(Fill(&mut key))?.is_some() {
            let known = std::mem::take(&mut key);
            self.key(&known, &mut own, &mut object)?;
        }
        self.close(own, start);
        Ok(())
    }
}
