//! A Slack message: its identity, who posted it, and its attachments.
//!
//! `intake` gets a message from the envelope; `delivery` and `ops` parse the stored text again with
//! [`parse`]. Only the parts of an attachment that an incident is read from are typed. A message
//! takes a few times its own size in memory, whatever it contains: see [`Attachments`].

mod parts;

use std::{borrow::Cow, ops::Deref};

use serde::de::{MapAccess, SeqAccess};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    ids::{AppName, ChannelId, MessageKey, MessageTs, TsKey},
    slack::{
        Unparsable,
        lenient::{self, Lenient, exact, raw, read, skip},
        mrkdwn,
    },
};

pub use self::parts::BotProfile;
use self::parts::Edit;

/// A message: for an edit, the message as edited. Absent texts are empty.
#[derive(Debug, Default)]
pub struct Message<'a> {
    /// Channel of the message.
    pub channel: Cow<'a, str>,
    /// Timestamp of the message, which identifies it in the channel.
    pub ts: Cow<'a, str>,
    /// Timestamp of the event: for an edit, that of the edit.
    pub event_ts: Cow<'a, str>,
    /// Bot that posted the message; empty for a person.
    pub bot_id: Cow<'a, str>,
    /// App that posted the message, if Slack names it.
    pub app_id: Cow<'a, str>,
    /// Slack's profile of the bot, which may be the only field that names the bot's app.
    pub bot_profile: BotProfile<'a>,
    /// Timestamp of the thread's first message, or empty. The first message of a thread has its
    /// own.
    pub thread_ts: Cow<'a, str>,
    /// Subtype of the post itself: in an edit, that of the message inside.
    pub post_subtype: Cow<'a, str>,
    /// Subtype of the event, or empty.
    pub subtype: Cow<'a, str>,
    /// `true` if this is a `message_changed`, or history shows that the message was edited.
    pub is_edit: bool,
    /// Time of the last edit, if Slack gives it.
    pub edited_ts: Cow<'a, str>,
    /// Attachments of the message.
    pub attachments: Attachments<'a>,
}

/// Attachments of a message, in Slack's order.
///
/// Slack takes at most a hundred in a message, but a signed body can hold more than a million. The
/// first [`Attachments::READ_AT_ONCE`] are parsed with the message. For the others that can have a
/// title, only the positions in the text are kept.
#[derive(Debug, Default)]
pub struct Attachments<'a> {
    first: Vec<Attachment<'a>>,
    rest: Vec<(u32, &'a str)>,
}

/// An attachment borrowed from its message, or parsed on demand.
#[derive(Debug)]
pub enum Lent<'m, 'a> {
    /// Parsed together with the message.
    Borrowed(&'m Attachment<'a>),
    /// Parsed when it was asked for.
    Owned(Attachment<'a>),
}

impl<'a> Deref for Lent<'_, 'a> {
    type Target = Attachment<'a>;

    fn deref(&self) -> &Attachment<'a> {
        match self {
            Self::Borrowed(attachment) => attachment,
            Self::Owned(attachment) => attachment,
        }
    }
}

impl<'a> Attachments<'a> {
    /// Number of attachments that are parsed with the message; more than Slack takes.
    pub const READ_AT_ONCE: usize = 128;

    /// Returns every attachment that can have a title, with its index in the message's list. One
    /// that is not an object counts as empty.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Lent<'_, 'a>)> {
        let rest = self
            .rest
            .iter()
            .filter_map(|(place, text)| Some((*place, Lent::Owned(lenient::parse(text).ok()?))));
        (0..).zip(self.first.iter().map(Lent::Borrowed)).chain(rest)
    }
}

/// An attachment (`docs.slack.dev/legacy/legacy-messaging/legacy-message-attachments`).
#[derive(Debug, Default)]
pub struct Attachment<'a> {
    /// Title of the attachment.
    pub title: Cow<'a, str>,
    /// URL to which the title links.
    pub title_link: Cow<'a, str>,
    /// Main text of the attachment.
    pub text: Cow<'a, str>,
    /// Table under the text, without cells that lack a title.
    pub fields: Vec<Field<'a>>,
    /// Buttons that have a URL.
    pub actions: Vec<Button<'a>>,
    /// `true` if Slack made the attachment from a linked page or message: anyone can choose its
    /// title.
    pub is_unfurl: bool,
}

/// One cell of an attachment's table.
#[derive(Debug, Default)]
pub struct Field<'a> {
    /// Heading of the cell.
    pub title: Cow<'a, str>,
    /// Content of the cell, in mrkdwn.
    pub value: Cow<'a, str>,
}

/// A button of an attachment.
#[derive(Debug, Default)]
pub struct Button<'a> {
    /// Text on the button.
    pub text: Cow<'a, str>,
    /// URL of the button, or empty.
    pub url: Cow<'a, str>,
}

/// Parses the inner event as it is stored.
///
/// # Errors
/// [`Unparsable`] if it is not one JSON object.
pub fn parse(raw: &str) -> Result<Message<'_>, Unparsable> {
    lenient::parse::<WireEvent<'_>>(raw).map(Message::from)
}

/// A stored message from which single attachments are read.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Channel of the message.
    pub channel: Cow<'a, str>,
    /// Bot that posted the message; empty for a person.
    pub bot_id: Cow<'a, str>,
    /// Text of the message as it is stored.
    pub raw: &'a str,
    /// `true` if this is the event of an edit, which has the message inside.
    pub is_edit_event: bool,
    attachments: Option<&'a str>,
}

impl<'a> Stored<'a> {
    /// Parses the inner event as it is stored, except its attachments.
    ///
    /// # Errors
    /// [`Unparsable`] if it is not one JSON object.
    pub fn parse(raw: &'a str) -> Result<Self, Unparsable> {
        let Parts { subtype, channel, own, edited } = lenient::parse(raw)?;
        let is_edit_event = subtype == EDIT;
        let Part { mut bot_id, bot_profile, attachments } =
            if is_edit_event { edited } else { own };
        if bot_id.is_empty() {
            bot_id = bot_profile.id;
        }
        Ok(Self { channel, bot_id, raw, is_edit_event, attachments })
    }

    /// Returns the attachment at an index, if there is one, and its text exactly as Slack sent it.
    ///
    /// ```
    /// use slack_soar_relay::slack::message::Stored;
    /// let raw = r#"{"attachments": [{}, {"thumb_url":  ""}]}"#;
    /// let stored = Stored::parse(raw).unwrap();
    /// assert_eq!(stored.attachment(1).unwrap().1.get(), r#"{"thumb_url":  ""}"#);
    /// assert!(stored.attachment(2).is_none());
    /// ```
    pub fn attachment(&self, place: u32) -> Option<(Attachment<'a>, &'a RawValue)> {
        let raw = lenient::item(self.attachments?, place)?;
        Some((lenient::parse(raw.get()).unwrap_or_default(), raw))
    }
}

impl Message<'_> {
    /// Returns the key of the message: by `ts`, else `event_ts`, else the SHA-256 of `raw`, the
    /// stored event.
    pub fn key(&self, app: &AppName, raw: &[u8]) -> MessageKey {
        let ts = self.readable_ts().map_or_else(|| TsKey::Digest(short_digest(raw)), TsKey::Ts);
        MessageKey { app: app.clone(), channel: ChannelId::new(&self.channel), ts }
    }

    /// Returns the time of the post: `ts`, else `event_ts`, else the envelope's `event_time` in
    /// seconds.
    pub fn posted_at(&self, event_time: i64) -> MessageTs {
        let dispatched = || MessageTs::from_micros(event_time.saturating_mul(1_000_000));
        self.readable_ts().unwrap_or_else(dispatched)
    }

    /// Returns whether this is the event of an edit, which has the message inside.
    pub fn is_edit_event(&self) -> bool {
        self.subtype == EDIT
    }

    /// Returns whether the message is a reply in the thread of another.
    pub fn is_reply(&self) -> bool {
        let trimmed = [&self.thread_ts, &self.ts].map(|ts| mrkdwn::trim(ts));
        let [thread, own] = trimmed;
        !thread.is_empty() && thread != own && thread.parse::<MessageTs>().ok() != own.parse().ok()
    }

    /// Returns whether a bot posted the message. Slack may leave out any one of these signs.
    pub fn is_by_bot(&self) -> bool {
        let BotProfile { id, app_id, name } = &self.bot_profile;
        [&self.bot_id, &self.app_id, id, app_id, name].iter().any(|sign| !sign.is_empty())
            || self.post_subtype == "bot_message"
    }

    /// Returns the id of the bot, or an empty text.
    pub fn bot(&self) -> &str {
        if self.bot_id.is_empty() { &self.bot_profile.id } else { &self.bot_id }
    }

    /// Returns the id of the bot's app, or an empty text.
    pub fn bots_app(&self) -> &str {
        if self.app_id.is_empty() { &self.bot_profile.app_id } else { &self.app_id }
    }

    fn readable_ts(&self) -> Option<MessageTs> {
        let read = |ts: &str| mrkdwn::trim(ts).parse().ok();
        read(&self.ts).or_else(|| read(&self.event_ts))
    }
}

fn short_digest(raw: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    for (to, from) in short.iter_mut().zip(Sha256::digest(raw)) {
        *to = from;
    }
    short
}

/// Subtype of an edit: the message as edited is inside, and the outer `ts` is that of the edit.
const EDIT: &str = "message_changed";

/// An inner event of any type, with the fields that any known type needs.
#[derive(Default)]
pub(super) struct WireEvent<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) minute_rate_limited: i64,
    channel: Cow<'a, str>,
    event_ts: Cow<'a, str>,
    own: PostFields<'a>,
    edited: PostFields<'a>,
}

/// Fields that a message and the message inside an edit have in common.
#[derive(Default)]
struct PostFields<'a> {
    ts: Cow<'a, str>,
    thread_ts: Cow<'a, str>,
    subtype: Cow<'a, str>,
    bot_id: Cow<'a, str>,
    app_id: Cow<'a, str>,
    bot_profile: BotProfile<'a>,
    attachments: Attachments<'a>,
    edited: Edit<'a>,
}

impl<'a> From<WireEvent<'a>> for Message<'a> {
    fn from(wire: WireEvent<'a>) -> Self {
        let subtype = wire.own.subtype.clone();
        let is_event = subtype == EDIT;
        // The outer fields of an edit describe the edit itself, its timestamp included.
        let post = if is_event { wire.edited } else { wire.own };
        let PostFields {
            ts,
            thread_ts,
            subtype: post_subtype,
            bot_id,
            app_id,
            bot_profile,
            attachments,
            edited,
        } = post;
        Self {
            channel: wire.channel,
            ts,
            thread_ts,
            event_ts: wire.event_ts,
            bot_id,
            app_id,
            bot_profile,
            subtype,
            post_subtype,
            is_edit: is_event || !edited.ts.is_empty(),
            edited_ts: edited.ts,
            attachments,
        }
    }
}

impl<'de> Lenient<'de> for WireEvent<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => read(object, &mut self.kind),
            "minute_rate_limited" => read(object, &mut self.minute_rate_limited),
            "channel" => read(object, &mut self.channel),
            "event_ts" => exact(object, &mut self.event_ts),
            "message" => read(object, &mut self.edited),
            _ => self.own.field(key, object),
        }
    }
}

impl<'de> Lenient<'de> for PostFields<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "ts" => exact(object, &mut self.ts),
            "thread_ts" => exact(object, &mut self.thread_ts),
            "subtype" => read(object, &mut self.subtype),
            "bot_id" => read(object, &mut self.bot_id),
            "app_id" => read(object, &mut self.app_id),
            "bot_profile" => read(object, &mut self.bot_profile),
            "attachments" => read(object, &mut self.attachments),
            "edited" => read(object, &mut self.edited),
            _ => skip(object),
        }
    }
}

impl Attachment<'_> {
    fn note_unfurl<'de, A: MapAccess<'de>>(&mut self, object: &mut A) -> Result<(), A::Error> {
        let mut is_unfurl = false;
        read(object, &mut is_unfurl)?;
        self.is_unfurl |= is_unfurl;
        Ok(())
    }
}

impl<'de> Lenient<'de> for Attachment<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "title" => read(object, &mut self.title),
            "title_link" => read(object, &mut self.title_link),
            "text" => read(object, &mut self.text),
            "fields" => read(object, &mut self.fields),
            "actions" => read(object, &mut self.actions),
            "from_url" | "original_url" | "is_share" => self.note_unfurl(object),
            _ if key.starts_with("is_") && key.ends_with("_unfurl") => self.note_unfurl(object),
            _ => skip(object),
        }
    }
}

/// A field without a title says nothing, and a body can hold a million of them.
impl<'de> Lenient<'de> for Field<'de> {
    fn is_kept(&self) -> bool {
        !self.title.is_empty()
    }

    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "title" => read(object, &mut self.title),
            "value" => read(object, &mut self.value),
            _ => skip(object),
        }
    }
}

/// A button without a URL says nothing.
impl<'de> Lenient<'de> for Button<'de> {
    fn is_kept(&self) -> bool {
        !self.url.is_empty()
    }

    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "text" => read(object, &mut self.text),
            "url" => read(object, &mut self.url),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Attachments<'de> {
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let first = lenient::items(&mut list, Self::READ_AT_ONCE)?;
        let mut rest = Vec::new();
        if first.len() == Self::READ_AT_ONCE {
            let mut place = u32::try_from(first.len()).unwrap_or(u32::MAX);
            while let Some(raw) = list.next_element::<&RawValue>()? {
                if raw.get().len() >= TITLED_MIN_BYTES {
                    rest.push((place, raw.get()));
                }
                place = place.saturating_add(1);
            }
        }
        Ok(Self { first, rest })
    }
}

/// Length of `{"title":7}`: a shorter attachment cannot have a title.
const TITLED_MIN_BYTES: usize = 11;

/// Fields of a stored message, twice: an edit has a message inside.
#[derive(Default)]
struct Parts<'a> {
    subtype: Cow<'a, str>,
    channel: Cow<'a, str>,
    own: Part<'a>,
    edited: Part<'a>,
}

#[derive(Default)]
struct Part<'a> {
    bot_id: Cow<'a, str>,
    bot_profile: BotProfile<'a>,
    attachments: Option<&'a str>,
}

impl<'de> Lenient<'de> for Parts<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "subtype" => read(object, &mut self.subtype),
            "channel" => read(object, &mut self.channel),
            "message" => read(object, &mut self.edited),
            _ => self.own.field(key, object),
        }
    }
}

impl<'de> Lenient<'de> for Part<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "bot_id" => read(object, &mut self.bot_id),
            "bot_profile" => read(object, &mut self.bot_profile),
            "attachments" => raw(object, &mut self.attachments),
            _ => skip(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! payload {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/slack/", $name))
        };
    }

    fn attachment_raw(raw: &str, place: u32) -> Option<&str> {
        Stored::parse(raw).unwrap().attachment(place).map(|(_typed, raw)| raw.get())
    }

    fn attachments<'m, 'a>(message: &'m Message<'a>) -> Vec<&'m Attachment<'a>> {
        message.attachments.first.iter().collect()
    }

    fn key(raw: &str) -> String {
        parse(raw).unwrap().key(&AppName::new("main").unwrap(), raw.as_bytes()).to_string()
    }

    #[test]
    fn every_legacy_field_of_an_attachment_is_kept() {
        let raw = payload!("legacy_attachment.json");
        let message = parse(raw).unwrap();
        let attachment = attachments(&message)[0];
        assert_eq!(attachment.title_link, "https://console.perimeterx.com/codeDefender/incidents");
        assert_eq!(attachment.actions[0].text, "View in Console");
        assert_eq!(attachment.fields.len(), 3);
        assert!(!attachment.is_unfurl);
        let kept: serde_json::Value =
            serde_json::from_str(attachment_raw(raw, 0).unwrap()).unwrap();
        let sent: serde_json::Value = serde_json::from_str(raw).unwrap();
        assert_eq!(kept, sent["attachments"][0]);
        for key in ["actions", "thumb_url", "thumb_width", "thumb_height", "title_link", "footer"] {
            assert!(kept.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn of_an_edit_the_inner_message_counts() {
        let raw = payload!("message_changed.json");
        let message = parse(raw).unwrap();
        assert!(message.is_edit);
        assert_eq!((&*message.ts, &*message.bot_id), ("1600689944.000500", "B0RELAYBOT1"));
        assert_eq!(attachments(&message).len(), 1);
        assert_eq!(key(raw), "main:C0123456789:1600689944.000500");
        assert_eq!(message.posted_at(0).micros(), 1_600_689_944_000_500);
        assert!(attachment_raw(raw, 0).unwrap().contains("edited by the vendor"));
    }

    #[test]
    fn an_inner_message_counts_only_in_an_edit() {
        let raw = r#"{"type":"message","ts":"2.0",
            "message":{"ts":"1.0","bot_id":"B1","attachments":[{}]}}"#;
        let message = parse(raw).unwrap();
        assert_eq!((&*message.ts, &*message.bot_id, message.is_edit), ("2.0", "", false));
        assert!(attachments(&message).is_empty() && attachment_raw(raw, 0).is_none());
    }

    #[test]
    fn an_edit_without_an_inner_message_is_empty() {
        for inner in ["", r#","message":null"#, r#","message":[1]"#] {
            let raw = format!(
                r#"{{"subtype":"message_changed","ts":"2.0","attachments":[{{}}]{inner}}}"#
            );
            let message = parse(&raw).unwrap();
            assert!(message.is_edit && message.ts.is_empty() && attachments(&message).is_empty());
            assert!(attachment_raw(&raw, 0).is_none());
        }
    }

    #[test]
    fn a_message_without_a_readable_ts_is_known_by_its_event_ts_or_its_digest() {
        assert_eq!(key(r#"{"channel":"C1","ts":"abc","event_ts":"5.25"}"#), "main:C1:5.250000");
        assert_eq!(key(r#"{"channel":"C1","ts":1600689944.0005}"#), "main:C1:1600689944.000500");
        let raw = r#"{"channel":"C1","ts":"abc"}"#;
        // printf '%s' '{"channel":"C1","ts":"abc"}' | sha256sum
        assert_eq!(key(raw), "main:C1:ts-3c6b5e7e98dcbf37");
        assert_ne!(key(raw), key(r#"{"channel":"C1","ts":"abd"}"#));
        assert_eq!(parse(raw).unwrap().posted_at(1_600_689_944).millis(), 1_600_689_944_000);
        assert_eq!(parse(raw).unwrap().posted_at(i64::MAX).millis(), i64::MAX / 1_000 + 1);
        assert_eq!(parse(raw).unwrap().posted_at(-1).micros(), 0);
    }

    #[test]
    fn a_ts_that_is_a_number_is_read_as_it_is_written() {
        for ts in [
            "1795939372.0003889",
            "\"1795939372.0003889\"",
            " 1795939372.000388",
            "1795939372000388",
        ] {
            let raw = format!(r#"{{"channel":"C1","ts":{ts},"event_ts":"5.0"}}"#);
            assert_eq!(key(&raw), "main:C1:1795939372.000388", "{ts}");
        }
        assert_eq!(
            key(r#"{"channel":"C1","ts":"1795939372.\u0030"}"#),
            "main:C1:1795939372.000000"
        );
        assert_eq!(key(r#"{"channel":"C1","ts":1.6e9}"#), "main:C1:1600000000.000000");
        assert_eq!(key(r#"{"channel":"C1","ts":true,"event_ts":"5.0"}"#), "main:C1:5.000000");
    }

    #[test]
    fn a_field_of_the_wrong_type_never_fails_the_message() {
        let raw = payload!("wrong_types.json");
        let message = parse(raw).unwrap();
        assert_eq!((&*message.channel, &*message.bot_id), ("C0123456789", ""));
        assert_eq!(attachments(&message).len(), 5);
        let last = attachments(&message)[4];
        assert_eq!((&*last.title, &*last.text), ("7", ""));
        let fields: Vec<_> = last.fields.iter().map(|f| (&*f.title, &*f.value)).collect();
        assert_eq!(fields, [("Risk Level", "80"), ("1.5", ""), ("Script", "")]);
        assert_eq!(last.actions.len(), 1);
        assert!(attachment_raw(raw, 3).unwrap().starts_with('['));
    }

    #[test]
    fn attachments_that_are_no_list_are_none() {
        for list in ["null", "{}", "7", "\"x\"", "{\"0\":{}}"] {
            let raw = format!(r#"{{"ts":"1.0","attachments":{list}}}"#);
            assert!(attachments(&parse(&raw).unwrap()).is_empty(), "{list}");
            assert!(attachment_raw(&raw, 0).is_none(), "{list}");
        }
    }

    #[test]
    fn every_mark_of_an_unfurl_is_seen() {
        for mark in [
            r#""from_url":"https://a""#,
            r#""original_url":"https://a""#,
            r#""is_msg_unfurl":true"#,
            r#""is_app_unfurl":1"#,
            r#""is_reply_unfurl":"true""#,
            r#""is_thread_root_unfurl":true,"is_app_unfurl":false"#,
            r#""is_future_unfurl":true"#,
        ] {
            let raw = format!(r#"{{"attachments":[{{{mark}}}]}}"#);
            assert!(attachments(&parse(&raw).unwrap())[0].is_unfurl, "{mark}");
        }
        for mark in [r#""from_url":"""#, r#""from_url":null"#, r#""is_msg_unfurl":false"#] {
            let raw = format!(r#"{{"attachments":[{{{mark}}}]}}"#);
            assert!(!attachments(&parse(&raw).unwrap())[0].is_unfurl, "{mark}");
        }
    }

    #[test]
    fn every_attachment_that_can_have_a_title_is_given_at_its_place() {
        let list = |count: u32| {
            let titled = |at: u32| match at % 3 {
                0 => format!(r#"{{"title":"{at}"}}"#),
                1 => "{}".to_owned(),
                _ => r#"[null,{"title":"x"}]"#.to_owned(),
            };
            (0..count).map(titled).collect::<Vec<_>>().join(" , ")
        };
        for count in [0, 1, 127, 128, 129, 130, 1_000] {
            let raw = format!(r#"{{"attachments":[{}]}}"#, list(count));
            let message = parse(&raw).unwrap();
            let titled: Vec<_> = message
                .attachments
                .iter()
                .filter(|(_, attachment)| !attachment.title.is_empty())
                .map(|(place, attachment)| (place, attachment.title.to_string()))
                .collect();
            let expected: Vec<_> =
                (0..count).step_by(3).map(|place| (place, place.to_string())).collect();
            assert_eq!(titled, expected);
            let stored = Stored::parse(&raw).unwrap();
            for (place, title) in titled {
                assert_eq!(stored.attachment(place).unwrap().0.title, title);
            }
            assert!(stored.attachment(count).is_none());
        }
    }

    #[test]
    fn a_million_of_anything_costs_no_more_than_a_few_times_its_text() {
        let size = 4 * 1024 * 1024;
        let many = |item: &str| vec![item; size / (item.len() + 1)].join(",");
        let empty = format!(r#"{{"attachments":[{}]}}"#, many("{}"));
        assert_eq!(parse_len(&empty), (Attachments::READ_AT_ONCE, 0));
        let (first, rest) =
            parse_len(&format!(r#"{{"attachments":[{}]}}"#, many(r#"{"a":"bcde"}"#)));
        assert_eq!(first, Attachments::READ_AT_ONCE);
        assert!(rest * size_of::<(u32, &str)>() < 2 * size);
        for item in ["{}", "[]", "7", r#"{"title":""}"#, r#"{"value":"x"}"#] {
            let raw = format!(
                r#"{{"attachments":[{{"fields":[{}],"actions":[{}]}}]}}"#,
                many(item),
                many(item)
            );
            let message = parse(&raw).unwrap();
            let attachment = attachments(&message)[0];
            assert!(attachment.fields.is_empty() && attachment.actions.is_empty(), "{item}");
        }
    }

    fn parse_len(raw: &str) -> (usize, usize) {
        let attachments = parse(raw).unwrap().attachments;
        (attachments.first.len(), attachments.rest.len())
    }

    #[test]
    fn an_attachment_of_a_hundred_thousand_levels_is_kept() {
        let deep = format!(r#"{{"text":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let raw = format!(r#"{{"attachments":[{deep}]}}"#);
        assert_eq!(attachments(&parse(&raw).unwrap())[0].text, "");
        assert_eq!(attachment_raw(&raw, 0).unwrap(), deep);
    }
}
