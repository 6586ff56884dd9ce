//! What the Web API answers, read leniently like everything of Slack's.

use std::borrow::Cow;

use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::{
    Channel,
    error::{ApiError, Code, Failure, Refusal},
};
use crate::{
    ids::ChannelId,
    slack::{
        Unparsable,
        lenient::{self, Lenient, raw, read, skip},
    },
};

/// An answer of any method, with everything that some method gives.
#[derive(Default)]
pub(super) struct Reply<'a> {
    ok: bool,
    error: Cow<'a, str>,
    needed: Cow<'a, str>,
    pub(super) team_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    pub(super) channels: Vec<Channel>,
    pub(super) channel: Channel,
    pub(super) has_more: bool,
    messages: Option<&'a str>,
    metadata: Metadata<'a>,
}

#[derive(Default)]
struct Metadata<'a> {
    next_cursor: Cow<'a, str>,
}

/// An answer that was found good before.
pub(super) fn reply(text: &str) -> Result<Reply<'_>, ApiError> {
    Reply::parse(text).map_err(|_unparsable| ApiError::Transient(Failure::NotJson))
}

impl<'a> Reply<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unparsable> {
        lenient::parse(text)
    }

    /// Why the answer is none; nothing if it is one.
    pub(super) fn error(&self) -> Option<Refusal> {
        let refusal = || Refusal { code: Code::new(&self.error), needed: Code::new(&self.needed) };
        (!self.ok).then(refusal)
    }

    /// The end is an empty, null or absent cursor, never a short page.
    pub(super) fn next_cursor(&self) -> Option<String> {
        let cursor = &self.metadata.next_cursor;
        (!cursor.is_empty()).then(|| cursor.clone().into_owned())
    }

    /// The messages, whole: Slack leaves the channel out, since it was asked for.
    pub(super) fn messages(&self, channel: &ChannelId) -> Vec<String> {
        let list: Vec<&RawValue> =
            self.messages.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        list.into_iter().map(|message| whole(message.get(), channel)).collect()
    }
}

/// The message with its channel as its last key, which counts if there should be another.
fn whole(message: &str, channel: &ChannelId) -> String {
    let Some(start) = message.trim_end().strip_suffix('}') else {
        return message.to_owned();
    };
    let comma = if start.trim() == "{" { "" } else { "," };
    let channel = serde_json::Value::from(channel.as_str());
    format!("{start}{comma}\"channel\":{channel}}}")
}

impl<'de> Lenient<'de> for Reply<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "ok" => read(object, &mut self.ok),
            "error" => read(object, &mut self.error),
            "needed" => read(object, &mut self.needed),
            "team_id" => read(object, &mut self.team_id),
            "user_id" => read(object, &mut self.user_id),
            "channels" => read(object, &mut self.channels),
            "channel" => read(object, &mut self.channel),
            "has_more" => read(object, &mut self.has_more),
            "messages" => raw(object, &mut self.messages),
            "response_metadata" => read(object, &mut self.metadata),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Metadata<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "next_cursor" => read(object, &mut self.next_cursor),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Channel {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => read(object, &mut self.id),
            "name" => read(object, &mut self.name),
            "is_member" => read(object, &mut self.is_member),
            "is_archived" => read(object, &mut self.is_archived),
            _ => skip(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slack::message;

    #[test]
    fn a_message_of_history_gets_its_channel() {
        let channel = ChannelId::new("C1");
        let text = r#"{"ok":true,"messages":[{"type":"message","ts":"1.000002","bot_id":"B1",
            "channel":"C9"},{},7]}"#;
        let messages = reply(text).unwrap().messages(&channel);
        assert_eq!(messages[1..], [r#"{"channel":"C1"}"#, "7"]);
        let first = message::parse(&messages[0]).unwrap();
        assert_eq!((&*first.channel, &*first.ts), ("C1", "1.000002"));
    }

    #[test]
    fn the_last_page_has_an_empty_an_absent_or_no_cursor() {
        for metadata in [
            "",
            r#","response_metadata":{"next_cursor":""}"#,
            r#","response_metadata":{"next_cursor":null}"#,
            r#","response_metadata":null"#,
        ] {
            let text = format!(r#"{{"ok":true{metadata}}}"#);
            assert_eq!(reply(&text).unwrap().next_cursor(), None, "{metadata}");
        }
        let text = r#"{"ok":true,"response_metadata":{"next_cursor":"bmV4dA=="}}"#;
        assert_eq!(reply(text).unwrap().next_cursor().as_deref(), Some("bmV4dA=="));
    }

    #[test]
    fn what_is_not_ok_is_refused_whatever_else_it_holds() {
        for text in [r#"{"messages":[]}"#, r#"{"ok":false}"#, r#"{"ok":null,"error":7}"#] {
            assert!(reply(text).unwrap().error().is_some(), "{text}");
        }
    }
}
