//! Small objects inside a message.

use std::borrow::Cow;

use serde::de::MapAccess;

use crate::slack::lenient::{Lenient, read, skip};

/// Slack's profile of a bot, as far as it tells bots apart.
#[derive(Debug, Default)]
pub struct BotProfile<'a> {
    /// Id of the bot, or empty.
    pub id: Cow<'a, str>,
    /// Id of the bot's app, or empty.
    pub app_id: Cow<'a, str>,
    /// Name of the bot, or empty.
    pub name: Cow<'a, str>,
}

/// The last edit of a message.
#[derive(Default)]
pub(super) struct Edit<'a> {
    pub(super) ts: Cow<'a, str>,
}

impl<'de> Lenient<'de> for BotProfile<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "id" => read(object, &mut self.id),
            "app_id" => read(object, &mut self.app_id),
            "name" => read(object, &mut self.name),
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
