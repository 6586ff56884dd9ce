//! A Slack message: its identity, who posted it, and its attachments.
//!
//! `intake` gets it out of the envelope; `delivery` and `ops` parse the stored text again with
//! [`parse`]. Of an attachment only what an incident is read from is typed; the whole of it is
//! kept as text by [`attachment_raw`].

use std::borrow::Cow;

use serde::de::MapAccess;
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

/// A message. Of an edit, this is the message as edited. Absent texts are empty.
#[derive(Debug, Default)]
pub struct Message<'a> {
    /// The channel it is in.
    pub channel: Cow<'a, str>,
    /// Its timestamp, which is its identity in the channel.
    pub ts: Cow<'a, str>,
    /// The event's timestamp: for an edit, that of the edit.
    pub event_ts: Cow<'a, str>,
    /// Which bot posted it; empty for a person.
    pub bot_id: Cow<'a, str>,
    /// Which app posted it, if Slack says so.
    pub app_id: Cow<'a, str>,
    /// The event's subtype, or empty.
    pub subtype: Cow<'a, str>,
    /// It is a `message_changed`, or history shows that it was edited.
    pub is_edit: bool,
    /// When it was last edited, if Slack says so.
    pub edited_ts: Cow<'a, str>,
    /// Its attachments, in Slack's order; one that is no object is an empty one, so that places
    /// stay as they are.
    pub attachments: Vec<Attachment<'a>>,
}

/// An attachment (`docs.slack.dev/legacy/legacy-messaging/legacy-message-attachments`).
#[derive(Debug, Default)]
pub struct Attachment<'a> {
    /// Its title.
    pub title: Cow<'a, str>,
    /// Where the title links to.
    pub title_link: Cow<'a, str>,
    /// Its main text.
    pub text: Cow<'a, str>,
    /// The table under the text.
    pub fields: Vec<Field<'a>>,
    /// The buttons.
    pub actions: Vec<Button<'a>>,
    /// Slack made it of a page or message that was linked to: anyone can choose its title.
    pub is_unfurl: bool,
}

/// One cell of an attachment's table.
#[derive(Debug, Default)]
pub struct Field<'a> {
    /// Its heading.
    pub title: Cow<'a, str>,
    /// Its content, in mrkdwn.
    pub value: Cow<'a, str>,
}

/// A button of an attachment.
#[derive(Debug, Default)]
pub struct Button<'a> {
    /// What is written on it.
    pub text: Cow<'a, str>,
    /// Where it leads to, or empty.
    pub url: Cow<'a, str>,
}

/// Reads the inner event as it is stored.
///
/// # Errors
/// [`Unparsable`] if it is not one JSON object.
pub fn parse(raw: &str) -> Result<Message<'_>, Unparsable> {
    lenient::parse::<Wire<'_>>(raw).map(Message::from)
}

/// An attachment of the message exactly as Slack sent it, by its place from 0.
///
/// ```
/// use slack_soar_relay::slack::message::attachment_raw;
/// let raw = r#"{"attachments": [{}, {"thumb_url":  ""}]}"#;
/// assert_eq!(attachment_raw(raw, 1).unwrap().get(), r#"{"thumb_url":  ""}"#);
/// assert!(attachment_raw(raw, 2).is_none());
/// ```
pub fn attachment_raw(raw: &str, index: u32) -> Option<Box<RawValue>> {
    let parts = lenient::parse::<Parts<'_>>(raw).ok()?;
    let list = if parts.subtype == EDIT { parts.edited.0 } else { parts.attachments };
    let list: Vec<&RawValue> = serde_json::from_str(list?).ok()?;
    list.get(usize::try_from(index).ok()?).map(|attachment| (*attachment).to_owned())
}

impl Message<'_> {
    /// The identity: by `ts`, else `event_ts`, else the SHA-256 of `raw`, the stored event.
    pub fn key(&self, app: &AppName, raw: &[u8]) -> MessageKey {
        let ts = self.readable_ts().map_or_else(|| TsKey::Digest(short_digest(raw)), TsKey::Ts);
        MessageKey { app: app.clone(), channel: ChannelId::new(&self.channel), ts }
    }

    /// When it was posted: `ts`, else `event_ts`, else the envelope's `event_time` in seconds.
    pub fn posted_at(&self, event_time: i64) -> MessageTs {
        let dispatched = || MessageTs::from_micros(event_time.saturating_mul(1_000_000));
        self.readable_ts().unwrap_or_else(dispatched)
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

/// The subtype of an edit: the message as edited is inside, the outer `ts` is that of the edit.
const EDIT: &str = "message_changed";

/// An inner event of any type, with everything that some type needs.
#[derive(Default)]
pub(super) struct Wire<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) minute_rate_limited: i64,
    channel: Cow<'a, str>,
    event_ts: Cow<'a, str>,
    subtype: Cow<'a, str>,
    own: Post<'a>,
    edited: Post<'a>,
}

/// What a message and the message inside of an edit have in common.
#[derive(Default)]
struct Post<'a> {
    ts: Cow<'a, str>,
    bot_id: Cow<'a, str>,
    app_id: Cow<'a, str>,
    attachments: Vec<Attachment<'a>>,
    edited: Edit<'a>,
}

/// The last edit of a message.
#[derive(Default)]
struct Edit<'a> {
    ts: Cow<'a, str>,
}

impl<'a> From<Wire<'a>> for Message<'a> {
    fn from(wire: Wire<'a>) -> Self {
        let is_event = wire.subtype == EDIT;
        let post = if is_event { wire.edited } else { wire.own };
        let Post { ts, bot_id, app_id, attachments, edited } = post;
        Self {
            channel: wire.channel,
            ts,
            event_ts: wire.event_ts,
            bot_id,
            app_id,
            subtype: wire.subtype,
            is_edit: is_event || !edited.ts.is_empty(),
            edited_ts: edited.ts,
            attachments,
        }
    }
}

impl<'de> Lenient<'de> for Wire<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "type" => read(object, &mut self.kind),
            "minute_rate_limited" => read(object, &mut self.minute_rate_limited),
            "channel" => read(object, &mut self.channel),
            "event_ts" => exact(object, &mut self.event_ts),
            "subtype" => read(object, &mut self.subtype),
            "message" => read(object, &mut self.edited),
            _ => self.own.field(key, object),
        }
    }
}

impl<'de> Lenient<'de> for Post<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "ts" => exact(object, &mut self.ts),
            "bot_id" => read(object, &mut self.bot_id),
            "app_id" => read(object, &mut self.app_id),
            "attachments" => read(object, &mut self.attachments),
            "edited" => read(object, &mut self.edited),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Edit<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "ts" => read(object, &mut self.ts),
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
            "from_url" | "original_url" => self.note_unfurl(object),
            _ if key.starts_with("is_") && key.ends_with("_unfurl") => self.note_unfurl(object),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Field<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "title" => read(object, &mut self.title),
            "value" => read(object, &mut self.value),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Button<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "text" => read(object, &mut self.text),
            "url" => read(object, &mut self.url),
            _ => skip(object),
        }
    }
}

/// The texts of both lists of attachments.
#[derive(Default)]
struct Parts<'a> {
    subtype: Cow<'a, str>,
    attachments: Option<&'a str>,
    edited: Edited<'a>,
}

impl<'de> Lenient<'de> for Parts<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "subtype" => read(object, &mut self.subtype),
            "attachments" => raw(object, &mut self.attachments),
            "message" => read(object, &mut self.edited),
            _ => skip(object),
        }
    }
}

#[derive(Default)]
struct Edited<'a>(Option<&'a str>);

impl<'de> Lenient<'de> for Edited<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        if key == "attachments" { raw(object, &mut self.0) } else { skip(object) }
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

    fn key(raw: &str) -> String {
        parse(raw).unwrap().key(&AppName::new("main").unwrap(), raw.as_bytes()).to_string()
    }

    #[test]
    fn every_legacy_field_of_an_attachment_is_kept() {
        let raw = payload!("legacy_attachment.json");
        let message = parse(raw).unwrap();
        let attachment = &message.attachments[0];
        assert_eq!(attachment.title_link, "https://console.perimeterx.com/codeDefender/incidents");
        assert_eq!(attachment.actions[0].text, "View in Console");
        assert_eq!(attachment.fields.len(), 3);
        assert!(!attachment.is_unfurl);
        let kept: serde_json::Value =
            serde_json::from_str(attachment_raw(raw, 0).unwrap().get()).unwrap();
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
        assert_eq!(message.attachments.len(), 1);
        assert_eq!(key(raw), "main:C0123456789:1600689944.000500");
        assert_eq!(message.posted_at(0).micros(), 1_600_689_944_000_500);
        assert!(attachment_raw(raw, 0).unwrap().get().contains("edited by the vendor"));
    }

    #[test]
    fn an_inner_message_counts_only_in_an_edit() {
        let raw = r#"{"type":"message","ts":"2.0",
            "message":{"ts":"1.0","bot_id":"B1","attachments":[{}]}}"#;
        let message = parse(raw).unwrap();
        assert_eq!((&*message.ts, &*message.bot_id, message.is_edit), ("2.0", "", false));
        assert!(message.attachments.is_empty() && attachment_raw(raw, 0).is_none());
    }

    #[test]
    fn an_edit_without_an_inner_message_is_empty() {
        for inner in ["", r#","message":null"#, r#","message":[1]"#] {
            let raw = format!(
                r#"{{"subtype":"message_changed","ts":"2.0","attachments":[{{}}]{inner}}}"#
            );
            let message = parse(&raw).unwrap();
            assert!(message.is_edit && message.ts.is_empty() && message.attachments.is_empty());
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
        for ts in ["1795939372.0003889", "\"1795939372.0003889\"", " 1795939372.000388", "1795939372000388"]
        {
            let raw = format!(r#"{{"channel":"C1","ts":{ts},"event_ts":"5.0"}}"#);
            assert_eq!(key(&raw), "main:C1:1795939372.000388", "{ts}");
        }
        assert_eq!(key(r#"{"channel":"C1","ts":"1795939372.\u0030"}"#), "main:C1:1795939372.000000");
        assert_eq!(key(r#"{"channel":"C1","ts":1.6e9}"#), "main:C1:1600000000.000000");
        assert_eq!(key(r#"{"channel":"C1","ts":true,"event_ts":"5.0"}"#), "main:C1:5.000000");
    }

    #[test]
    fn a_field_of_the_wrong_type_never_fails_the_message() {
        let raw = payload!("wrong_types.json");
        let message = parse(raw).unwrap();
        assert_eq!((&*message.channel, &*message.bot_id), ("C0123456789", ""));
        assert_eq!(message.attachments.len(), 5);
        let last = &message.attachments[4];
        assert_eq!((&*last.title, &*last.text), ("7", ""));
        let fields: Vec<_> = last.fields.iter().map(|f| (&*f.title, &*f.value)).collect();
        assert_eq!(fields, [("", ""), ("Risk Level", "80"), ("1.5", ""), ("Script", "")]);
        assert_eq!(last.actions.len(), 2);
        assert!(attachment_raw(raw, 3).unwrap().get().starts_with('['));
    }

    #[test]
    fn attachments_that_are_no_list_are_none() {
        for list in ["null", "{}", "7", "\"x\"", "{\"0\":{}}"] {
            let raw = format!(r#"{{"ts":"1.0","attachments":{list}}}"#);
            assert!(parse(&raw).unwrap().attachments.is_empty(), "{list}");
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
            assert!(parse(&raw).unwrap().attachments[0].is_unfurl, "{mark}");
        }
        for mark in [r#""from_url":"""#, r#""from_url":null"#, r#""is_msg_unfurl":false"#] {
            let raw = format!(r#"{{"attachments":[{{{mark}}}]}}"#);
            assert!(!parse(&raw).unwrap().attachments[0].is_unfurl, "{mark}");
        }
    }

    #[test]
    fn an_attachment_of_a_hundred_thousand_levels_is_kept() {
        let deep = format!(r#"{{"text":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let raw = format!(r#"{{"attachments":[{deep}]}}"#);
        assert_eq!(parse(&raw).unwrap().attachments[0].text, "");
        assert_eq!(attachment_raw(&raw, 0).unwrap().get(), deep);
    }
}
