//! Answers of the Web API, read leniently like everything of Slack's.

use std::borrow::Cow;

use serde::de::{MapAccess, SeqAccess};
use serde_json::{Value, value::RawValue};

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

/// Limit of a cursor, which has to fit into a URL. Slack's are much shorter.
const CURSOR_BYTES: usize = 4096;

/// An answer of any method, with the fields that any of them has.
#[derive(Default)]
pub(super) struct Reply<'a> {
    ok: Success,
    error: Cow<'a, str>,
    needed: Cow<'a, str>,
    pub(super) team_id: Cow<'a, str>,
    pub(super) user_id: Cow<'a, str>,
    channels: Channels,
    channel: Channel,
    pub(super) has_more: bool,
    messages: Option<&'a str>,
    metadata: Option<&'a str>,
}

/// Value of `ok`. Nothing but a JSON Boolean counts.
#[derive(Clone, Copy, Default)]
enum Success {
    #[default]
    Unsaid,
    Yes,
    No,
}

/// List of channels; `None` if there is not an array in its place.
#[derive(Default)]
struct Channels(Option<Vec<Channel>>);

#[derive(Default)]
struct Metadata<'a> {
    next_cursor: Option<&'a str>,
}

/// Parses an answer whose `ok` was checked before.
pub(super) fn reply(text: &str) -> Result<Reply<'_>, ApiError> {
    Reply::parse(text).map_err(|_unparsable| ApiError::Transient(Failure::NotJson))
}

/// Returns the error for an answer without a field that its method promises. A later answer may
/// have it.
const fn incomplete(field: &'static str) -> ApiError {
    ApiError::Transient(Failure::Incomplete(field))
}

impl<'a> Reply<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unparsable> {
        lenient::parse(text)
    }

    /// Returns the refusal, or `None` for a successful answer.
    pub(super) fn error(&self) -> Option<Refusal> {
        match self.ok {
            Success::Yes => None,
            Success::No => {
                Some(Refusal { code: Code::new(&self.error), needed: Code::new(&self.needed) })
            }
            Success::Unsaid => Some(Refusal::default()),
        }
    }

    /// Checks that the answer names the user.
    pub(super) fn identity(&self) -> Result<(), ApiError> {
        if self.user_id.is_empty() { Err(incomplete("user_id")) } else { Ok(()) }
    }

    /// Returns the channels, without those that lack an id.
    pub(super) fn channels(self) -> Result<Vec<Channel>, ApiError> {
        let mut channels = self.channels.0.ok_or(incomplete("channels"))?;
        channels.retain(|channel| !channel.id.is_empty());
        Ok(channels)
    }

    /// Returns the channel of an answer about one channel.
    pub(super) fn channel(self) -> Result<Channel, ApiError> {
        if self.channel.id.is_empty() { Err(incomplete("channel")) } else { Ok(self.channel) }
    }

    /// Returns the cursor of the next page. The last page has an empty, null or absent cursor; a
    /// short page may have a next one. Slack writes an empty object as an empty array now and then.
    pub(super) fn next_cursor(&self) -> Result<Option<String>, ApiError> {
        let text = self.metadata.unwrap_or_default();
        if ["", "null", "[]"].contains(&text) {
            return Ok(None);
        }
        let metadata: Metadata<'_> =
            lenient::parse(text).map_err(|_unparsable| incomplete("response_metadata"))?;
        let cursor = match metadata.next_cursor.map(serde_json::from_str) {
            None | Some(Ok(Value::Null)) => return Ok(None),
            Some(Ok(Value::String(cursor))) => cursor,
            Some(Ok(Value::Number(number))) => number.to_string(),
            // A cursor that cannot be read must not look like the end: the rest would never be
            // read.
            Some(Ok(Value::Bool(_) | Value::Array(_) | Value::Object(_)) | Err(_)) => {
                return Err(incomplete("next_cursor"));
            }
        };
        if cursor.len() > CURSOR_BYTES {
            return Err(incomplete("next_cursor"));
        }
        Ok((!cursor.is_empty()).then_some(cursor))
    }

    /// Returns the messages, each with its channel: Slack leaves the channel out, since it was
    /// asked for.
    pub(super) fn messages(&self, channel: &ChannelId) -> Result<Vec<String>, ApiError> {
        let text = self.messages.filter(|text| text.starts_with('['));
        let list: Vec<&RawValue> =
            text.and_then(|text| serde_json::from_str(text).ok()).ok_or(incomplete("messages"))?;
        Ok(list.into_iter().map(|message| whole(message.get(), channel)).collect())
    }
}

/// Returns the message with its channel as the last key, which counts if there is another.
fn whole(message: &str, channel: &ChannelId) -> String {
    let Some(start) = message.trim_end().strip_suffix('}') else {
        return message.to_owned();
    };
    let comma = if start.trim() == "{" { "" } else { "," };
    let channel = Value::from(channel.as_str());
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
            "response_metadata" => raw(object, &mut self.metadata),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Metadata<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "next_cursor" => raw(object, &mut self.next_cursor),
            _ => skip(object),
        }
    }
}

impl Lenient<'_> for Success {
    fn flag(flag: bool) -> Self {
        if flag { Self::Yes } else { Self::No }
    }
}

impl<'de> Lenient<'de> for Channels {
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        Vec::list(list).map(|channels| Self(Some(channels)))
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
        let messages = reply(text).unwrap().messages(&channel).unwrap();
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
            r#","response_metadata":[]"#,
            r#","response_metadata":{"warnings":["x"]}"#,
        ] {
            let text = format!(r#"{{"ok":true{metadata}}}"#);
            assert_eq!(reply(&text).unwrap().next_cursor().unwrap(), None, "{metadata}");
        }
        let text = r#"{"ok":true,"response_metadata":{"next_cursor":"bmV4dA=="}}"#;
        assert_eq!(reply(text).unwrap().next_cursor().unwrap().as_deref(), Some("bmV4dA=="));
    }

    #[test]
    fn what_is_not_ok_is_refused_whatever_else_it_holds() {
        for text in [
            r#"{"messages":[]}"#,
            r#"{"ok":false}"#,
            r#"{"ok":null,"error":7}"#,
            r#"{"ok":"true","messages":[]}"#,
            r#"{"ok":1,"messages":[]}"#,
            r#"{"ok":{},"messages":[]}"#,
        ] {
            assert!(reply(text).unwrap().error().is_some(), "{text}");
        }
    }

    #[test]
    fn an_answer_without_what_its_method_promises_is_incomplete() {
        let channel = ChannelId::new("C1");
        for wrong in ["null", "{}", r#""none""#, "7", "true", r#"{"0":{"ts":"1.0"}}"#] {
            let with = |key: &str| format!(r#"{{"ok":true,"{key}":{wrong}}}"#);
            assert!(reply(&with("messages")).unwrap().messages(&channel).is_err(), "{wrong}");
            assert!(reply(&with("channels")).unwrap().channels().is_err(), "{wrong}");
        }
        let bare = || reply(r#"{"ok":true,"channel":{"name":"x"}}"#).unwrap();
        assert!(bare().messages(&channel).is_err() && bare().channels().is_err());
        assert!(bare().channel().is_err() && bare().identity().is_err());
        for metadata in [r#""next""#, "7", "[1]", r#"{"next_cursor":{}}"#] {
            let text = format!(r#"{{"ok":true,"response_metadata":{metadata}}}"#);
            assert!(reply(&text).unwrap().next_cursor().is_err(), "{metadata}");
        }
        let long = "a".repeat(5000);
        let text = format!(r#"{{"ok":true,"response_metadata":{{"next_cursor":"{long}"}}}}"#);
        assert!(reply(&text).unwrap().next_cursor().is_err());
    }
}
