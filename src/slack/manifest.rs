//! The manifest of the Slack app: exactly the scopes and events that the configuration needs. Pure.
//!
//! `cli` prints the manifest, and compares the scopes with those of the token. The fields are those
//! of docs.slack.dev/reference/app-manifest; *Delayed Events* is not one of them, so a person must
//! switch it on.

use serde::Serialize;

/// Kind of a channel from which incidents are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// A public channel.
    Public,
    /// A private channel.
    Private,
    /// Direct messages to the bot.
    Direct,
}

impl ChannelKind {
    /// Returns the kinds that a channel with this id may have. The id of a private channel may
    /// begin like that of a public one.
    ///
    /// ```
    /// use slack_soar_relay::slack::manifest::ChannelKind;
    /// assert_eq!(ChannelKind::of("C0123456789"), [ChannelKind::Public, ChannelKind::Private]);
    /// assert_eq!(ChannelKind::of("G0123456789"), [ChannelKind::Private]);
    /// ```
    pub fn of(id: &str) -> &'static [Self] {
        match id.bytes().next() {
            Some(b'G') => &[Self::Private],
            Some(b'D') => &[Self::Direct],
            Some(_) | None => &[Self::Public, Self::Private],
        }
    }
}

/// Uses of the app that decide its scopes and events.
#[derive(Clone, Debug)]
pub struct Needs {
    /// URL to which Slack posts events.
    pub request_url: String,
    /// Kinds of the channels with incidents.
    pub kinds: Vec<ChannelKind>,
    /// `true` if catch-up reads history.
    pub catch_up: bool,
    /// `true` if the vendor posts through the app's incoming webhook.
    pub incoming_webhook: bool,
}

/// A manifest in the form that Slack reads.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    display_information: DisplayInformation,
    features: Features,
    oauth_config: OauthConfig,
    settings: Settings,
}

#[derive(Clone, Debug, Serialize)]
struct DisplayInformation {
    name: &'static str,
    description: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Features {
    bot_user: BotUser,
}

#[derive(Clone, Debug, Serialize)]
struct BotUser {
    display_name: &'static str,
    always_online: bool,
}

#[derive(Clone, Debug, Serialize)]
struct OauthConfig {
    scopes: Scopes,
}

#[derive(Clone, Debug, Serialize)]
struct Scopes {
    bot: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct Settings {
    event_subscriptions: EventSubscriptions,
    org_deploy_enabled: bool,
    socket_mode_enabled: bool,
    token_rotation_enabled: bool,
}

#[derive(Clone, Debug, Serialize)]
struct EventSubscriptions {
    request_url: String,
    bot_events: Vec<&'static str>,
}

/// Returns the manifest of an app for these uses.
pub fn manifest(needs: &Needs) -> Manifest {
    Manifest {
        display_information: DisplayInformation {
            name: "slack-soar-relay",
            description: "Relays Code Defender incidents to a SOAR",
        },
        features: Features {
            bot_user: BotUser { display_name: "slack-soar-relay", always_online: false },
        },
        oauth_config: OauthConfig { scopes: Scopes { bot: scopes(needs) } },
        settings: Settings {
            event_subscriptions: EventSubscriptions {
                request_url: needs.request_url.clone(),
                bot_events: events(needs),
            },
            org_deploy_enabled: false,
            socket_mode_enabled: false,
            token_rotation_enabled: false,
        },
    }
}

/// Returns the scopes of the bot. The history scopes are also needed for messages to be pushed.
pub fn scopes(needs: &Needs) -> Vec<&'static str> {
    let mut scopes = Vec::new();
    for (kind, history, read) in [
        (ChannelKind::Public, "channels:history", "channels:read"),
        (ChannelKind::Private, "groups:history", "groups:read"),
        (ChannelKind::Direct, "im:history", "im:read"),
    ] {
        if needs.kinds.contains(&kind) {
            scopes.push(history);
            scopes.extend(needs.catch_up.then_some(read));
        }
    }
    scopes.extend(needs.incoming_webhook.then_some("incoming-webhook"));
    scopes
}

/// Returns the events to subscribe to. Those about channels help only catch-up, and need its
/// scopes.
fn events(needs: &Needs) -> Vec<&'static str> {
    let mut events = Vec::new();
    for (kind, message, changes) in [
        (ChannelKind::Public, "message.channels", &["channel_archive", "channel_rename"][..]),
        (ChannelKind::Private, "message.groups", &["group_archive", "group_rename"][..]),
        (ChannelKind::Direct, "message.im", &[][..]),
    ] {
        if needs.kinds.contains(&kind) {
            events.push(message);
            events.extend(changes.iter().filter(|_| needs.catch_up));
        }
    }
    let has_channels = needs.kinds.iter().any(|kind| *kind != ChannelKind::Direct);
    if needs.catch_up && has_channels {
        events.extend(["channel_id_changed", "member_left_channel"]);
    }
    events.extend(["app_uninstalled", "tokens_revoked"]);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(ids: &[&str], catch_up: bool) -> Needs {
        Needs {
            request_url: "https://relay.example.com/slack/events".to_owned(),
            kinds: ids.iter().flat_map(|id| ChannelKind::of(id)).copied().collect(),
            catch_up,
            incoming_webhook: true,
        }
    }

    #[test]
    fn no_scope_is_asked_for_that_is_not_used() {
        for (ids, catch_up, expected) in [
            (
                &["C1"][..],
                true,
                "channels:history channels:read groups:history groups:read incoming-webhook",
            ),
            (&["C1"], false, "channels:history groups:history incoming-webhook"),
            (&["G1"], true, "groups:history groups:read incoming-webhook"),
            (&["G1", "D1"], false, "groups:history im:history incoming-webhook"),
        ] {
            assert_eq!(scopes(&needs(ids, catch_up)).join(" "), expected);
        }
        let without = Needs { incoming_webhook: false, ..needs(&["C1"], false) };
        assert_eq!(scopes(&without), ["channels:history", "groups:history"]);
    }

    /// The scope without which Slack does not send an event (docs.slack.dev/reference/events).
    fn scope_of(event: &str) -> &'static [&'static str] {
        match event {
            "message.channels" => &["channels:history"],
            "message.groups" => &["groups:history"],
            "message.im" => &["im:history"],
            "channel_archive" | "channel_rename" => &["channels:read"],
            "group_archive" | "group_rename" => &["groups:read"],
            "channel_id_changed" | "member_left_channel" => &["channels:read", "groups:read"],
            "app_uninstalled" | "tokens_revoked" => &[],
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_event_has_its_scope_and_every_scope_its_use() {
        for ids in [&["C1"][..], &["G1"], &["D1"], &["C1", "D1"]] {
            for catch_up in [true, false] {
                let needs = needs(ids, catch_up);
                let (scopes, events) = (scopes(&needs), events(&needs));
                for event in &events {
                    let any = scope_of(event);
                    assert!(
                        any.is_empty() || any.iter().any(|one| scopes.contains(one)),
                        "{event}"
                    );
                }
                let used =
                    |scope: &str| events.iter().any(|event| scope_of(event).contains(&scope));
                for scope in scopes {
                    assert!(
                        used(scope) || ["incoming-webhook", "im:read"].contains(&scope),
                        "{scope}"
                    );
                }
            }
        }
    }
}
