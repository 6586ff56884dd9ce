//! Details of an event after which Slack may stop sending events: the channel, the member, the
//! token.
//!
//! `intake` reads these after [`envelope`](super::envelope) has found the event's kind. The events
//! are rare, so their text is parsed a second time.

use std::borrow::Cow;

use serde::de::MapAccess;

use crate::slack::{
    envelope::Lifecycle,
    lenient::{self, Lenient, read, skip},
};

/// A change of the app or of a channel. Ids and names that cannot be read are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Tokens of the app were revoked.
    TokensRevoked {
        /// `true` if the bot's token may be among them: not only users' tokens are named.
        of_bot: bool,
    },
    /// The app was removed from the workspace.
    AppUninstalled,
    /// A channel has a new name.
    Renamed {
        /// Id of the channel.
        channel: String,
        /// New name of the channel.
        name: String,
    },
    /// A channel was archived: nothing can be posted in it any more.
    Archived {
        /// Id of the channel.
        channel: String,
    },
    /// A channel has a new id.
    IdChanged {
        /// Id before the change.
        old: String,
        /// Id after the change.
        new: String,
    },
    /// A member left a channel, or was removed.
    MemberLeft {
        /// Id of the channel.
        channel: String,
        /// Id of the member.
        user: String,
    },
}

/// Parses an event of that kind.
///
/// ```
/// use slack_soar_relay::slack::{envelope::Lifecycle, lifecycle::{Change, change}};
/// let raw = r#"{"type": "channel_archive", "channel": "C1", "user": "U1"}"#;
/// assert_eq!(
///     change(Lifecycle::ChannelArchive, raw),
///     Change::Archived { channel: "C1".into() }
/// );
/// ```
pub fn change(kind: Lifecycle, raw: &str) -> Change {
    let wire: LifecycleFields<'_> = lenient::parse(raw).unwrap_or_default();
    let channel = wire.channel.id.into_owned();
    match kind {
        // In doubt the bot's token counts as revoked, since the event only makes the relay ask
        // Slack.
        Lifecycle::TokensRevoked => Change::TokensRevoked {
            of_bot: !wire.tokens.bot.is_empty() || wire.tokens.oauth.is_empty(),
        },
        Lifecycle::AppUninstalled => Change::AppUninstalled,
        Lifecycle::ChannelRename | Lifecycle::GroupRename => {
            Change::Renamed { channel, name: wire.channel.name.into_owned() }
        }
        Lifecycle::ChannelArchive | Lifecycle::GroupArchive => Change::Archived { channel },
        Lifecycle::ChannelIdChanged => Change::IdChanged {
            old: wire.old_channel_id.into_owned(),
            new: wire.new_channel_id.into_owned(),
        },
        Lifecycle::MemberLeftChannel => {
            Change::MemberLeft { channel, user: wire.user.into_owned() }
        }
    }
}

#[derive(Default)]
struct LifecycleFields<'a> {
    channel: Channel<'a>,
    old_channel_id: Cow<'a, str>,
    new_channel_id: Cow<'a, str>,
    user: Cow<'a, str>,
    tokens: Tokens<'a>,
}

/// A channel, which some events name and others describe.
#[derive(Default)]
struct Channel<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
}

#[derive(Default)]
struct Tokens<'a> {
    oauth: Vec<Cow<'a, str>>,
    bot: Vec<Cow<'a, str>>,
}

impl<'de> Lenient<'de> for LifecycleFields<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "channel" => read(object, &mut self.channel),
            "old_channel_id" => read(object, &mut self.old_channel_id),
            "new_channel_id" => read(object, &mut self.new_channel_id),
            "user" => read(object, &mut self.user),
            "tokens" => read(object, &mut self.tokens),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Channel<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self { id: text, name: Cow::default() }
    }

    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => read(object, &mut self.id),
            "name" => read(object, &mut self.name),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Tokens<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "oauth" => read(object, &mut self.oauth),
            "bot" => read(object, &mut self.bot),
            _ => skip(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_read_in_its_own_shape() {
        let text = str::to_owned;
        for (kind, raw, expected) in [
            (
                Lifecycle::ChannelRename,
                r#"{"channel":{"id":"C1","name":"alerts","created":1}}"#,
                Change::Renamed { channel: text("C1"), name: text("alerts") },
            ),
            (
                Lifecycle::ChannelIdChanged,
                r#"{"old_channel_id":"G1","new_channel_id":"C2","event_ts":"1.0"}"#,
                Change::IdChanged { old: text("G1"), new: text("C2") },
            ),
            (
                Lifecycle::MemberLeftChannel,
                r#"{"user":"U1","channel":"C1","channel_type":"C","team":"T1"}"#,
                Change::MemberLeft { channel: text("C1"), user: text("U1") },
            ),
            (Lifecycle::AppUninstalled, "{}", Change::AppUninstalled),
            (
                Lifecycle::GroupArchive,
                r#"{"channel":7}"#,
                Change::Archived { channel: String::new() },
            ),
        ] {
            assert_eq!(change(kind, raw), expected, "{raw}");
        }
    }

    #[test]
    fn revoked_tokens_may_be_the_bots_unless_only_users_are_named() {
        for (tokens, of_bot) in [
            (r#"{"oauth":["U1"],"bot":["U2"]}"#, true),
            (r#"{"oauth":["U1"],"bot":[]}"#, false),
            (r#"{"oauth":["U1"]}"#, false),
            ("{}", true),
            ("null", true),
        ] {
            let raw = format!(r#"{{"tokens":{tokens}}}"#);
            let read = change(Lifecycle::TokensRevoked, &raw);
            assert_eq!(read, Change::TokensRevoked { of_bot }, "{tokens}");
        }
    }
}
