//! The bodies that Slack posts: a verification of our URL, an event, or the notice that events were
//! left out.
//!
//! `intake` parses every signed body here, once, borrowing from the text. A type or a field that
//! Slack adds tomorrow is [`Envelope::Unknown`] or skipped, never an error.

mod event_span;

use std::{borrow::Cow, mem};

use serde::de::MapAccess;

use self::event_span::EventSpan;
use crate::slack::{
    Unparsable,
    lenient::{self, Lenient, read, skip},
    message::{Message, WireEvent},
};

/// Contents of a signed body (docs.slack.dev/apis/events-api).
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Envelope<'a> {
    /// Slack's request to prove that the URL is ours.
    UrlVerification {
        /// Text to send back to Slack.
        challenge: Cow<'a, str>,
    },
    /// An event of one of the subscribed types.
    Event(Callback<'a>),
    /// Slack left out events of one minute: there were more than 30,000 in an hour.
    AppRateLimited {
        /// Beginning of the minute, in seconds since the epoch.
        minute: i64,
        /// Installs whose events were left out.
        teams: Teams<'a>,
    },
    /// A type that is not known here.
    Unknown,
}

/// An event with the fields of its envelope.
#[derive(Debug)]
pub struct Callback<'a> {
    /// Workspace in which the event happened.
    pub team_id: Cow<'a, str>,
    /// Installs of the app for which the event was sent.
    pub teams: Teams<'a>,
    /// Slack's id of the event. One message may come under several.
    pub event_id: Cow<'a, str>,
    /// Time at which Slack sent the event, in seconds since the epoch; 0 if unreadable.
    pub event_time: i64,
    /// The event, parsed.
    pub event: Event<'a>,
    /// Exact text of the event, as it is stored. Empty if the envelope does not have one.
    pub raw: &'a str,
}

/// Installs of an app for which a body was sent, from the best field that names them: in a shared
/// channel the event may have happened elsewhere.
#[derive(Debug, Default)]
pub struct Teams<'a> {
    /// Ids of workspaces.
    workspaces: Vec<Cow<'a, str>>,
    /// Ids of organisations that may have the app in all of their workspaces.
    organisations: Vec<Cow<'a, str>>,
}

impl Teams<'_> {
    /// Returns whether the body names that workspace.
    pub fn name_workspace(&self, team: &str) -> bool {
        self.workspaces.iter().any(|known| known == team)
    }

    /// Returns whether the body names that organisation.
    pub fn name_organisation(&self, team: &str) -> bool {
        self.organisations.iter().any(|known| known == team)
    }

    /// Returns whether the body names neither a workspace nor an organisation.
    pub fn is_empty(&self) -> bool {
        self.workspaces.is_empty() && self.organisations.is_empty()
    }

    /// Returns the first install, or an empty text.
    pub fn first(&self) -> &str {
        self.workspaces.first().or(self.organisations.first()).map_or("", Cow::as_ref)
    }
}

impl Envelope<'_> {
    /// Returns the installs for which the body was sent, if a body of this type names them.
    pub fn teams(&self) -> Option<&Teams<'_>> {
        match self {
            Self::Event(callback) => Some(&callback.teams),
            Self::AppRateLimited { teams, .. } => Some(teams),
            Self::UrlVerification { .. } | Self::Unknown => None,
        }
    }
}

/// An event, as far as this program tells types apart.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
pub enum Event<'a> {
    /// A message was posted or edited.
    Message(Message<'a>),
    /// The app or a channel changed in a way that may stop events.
    Lifecycle(Lifecycle),
    /// An event of any other type.
    Other,
}

/// A change after which Slack may stop sending events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Tokens of the app were revoked.
    TokensRevoked,
    /// The app was removed from the workspace.
    AppUninstalled,
    /// A public channel has another name.
    ChannelRename,
    /// A public channel was archived.
    ChannelArchive,
    /// A private channel has another name.
    GroupRename,
    /// A private channel was archived.
    GroupArchive,
    /// A channel has another id.
    ChannelIdChanged,
    /// Somebody, perhaps our bot, left a channel.
    MemberLeftChannel,
}

impl Lifecycle {
    const ALL: [Self; 8] = [
        Self::TokensRevoked,
        Self::AppUninstalled,
        Self::ChannelRename,
        Self::ChannelArchive,
        Self::GroupRename,
        Self::GroupArchive,
        Self::ChannelIdChanged,
        Self::MemberLeftChannel,
    ];

    /// Returns Slack's name of the event type.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TokensRevoked => "tokens_revoked",
            Self::AppUninstalled => "app_uninstalled",
            Self::ChannelRename => "channel_rename",
            Self::ChannelArchive => "channel_archive",
            Self::GroupRename => "group_rename",
            Self::GroupArchive => "group_archive",
            Self::ChannelIdChanged => "channel_id_changed",
            Self::MemberLeftChannel => "member_left_channel",
        }
    }
}

/// Parses a body.
///
/// ```
/// use slack_soar_relay::slack::envelope::{Envelope, parse};
/// let body = r#"{"type": "url_verification", "challenge": "3eZbrw1a"}"#;
/// let Envelope::UrlVerification { challenge } = parse(body).unwrap() else { panic!() };
/// assert_eq!(challenge, "3eZbrw1a");
/// ```
///
/// # Errors
/// [`Unparsable`] if it is not one JSON object.
pub fn parse(text: &str) -> Result<Envelope<'_>, Unparsable> {
    let mut outer: Outer<'_> = lenient::parse(text)?;
    let teams = outer.teams();
    Ok(match &*outer.kind {
        "url_verification" => Envelope::UrlVerification { challenge: outer.challenge },
        "app_rate_limited" => Envelope::AppRateLimited { minute: outer.minute_rate_limited, teams },
        // Slack's documentation has this type at the top level, samples of its Java SDK inside a
        // callback.
        "event_callback" if outer.event.kind == "app_rate_limited" => {
            let minute = outer.minute_rate_limited.max(outer.event.minute_rate_limited);
            Envelope::AppRateLimited { minute, teams }
        }
        "event_callback" => Envelope::Event(Callback {
            team_id: outer.team_id,
            teams,
            event_id: outer.event_id,
            event_time: outer.event_time,
            raw: outer.span.text(text).unwrap_or_default(),
            event: event(outer.event),
        }),
        _ => Envelope::Unknown,
    })
}

/// Returns the exact text of `event` in a body.
///
/// ```
/// use slack_soar_relay::slack::envelope::inner_event;
/// let body = r#"{"token": "secret", "event": {"ts":  "1.5"}}"#;
/// assert_eq!(inner_event(body), Some(r#"{"ts":  "1.5"}"#));
/// ```
pub fn inner_event(text: &str) -> Option<&str> {
    lenient::parse::<Outer<'_>>(text).ok()?.span.text(text)
}

fn event(wire: WireEvent<'_>) -> Event<'_> {
    if wire.kind == "message" {
        return Event::Message(wire.into());
    }
    let lifecycle = Lifecycle::ALL.into_iter().find(|known| known.label() == wire.kind);
    lifecycle.map_or(Event::Other, Event::Lifecycle)
}

#[derive(Default)]
struct Outer<'a> {
    kind: Cow<'a, str>,
    challenge: Cow<'a, str>,
    team_id: Cow<'a, str>,
    enterprise_id: Cow<'a, str>,
    context_team_id: Cow<'a, str>,
    context_enterprise_id: Cow<'a, str>,
    authorizations: Vec<Authorization<'a>>,
    event_id: Cow<'a, str>,
    event_time: i64,
    minute_rate_limited: i64,
    event: WireEvent<'a>,
    span: EventSpan,
}

impl<'a> Outer<'a> {
    /// Returns the installs for which the body was sent, from the best field that names one.
    fn teams(&mut self) -> Teams<'a> {
        // `authorizations` names one of the installs (docs.slack.dev/apis/events-api). Its
        // `team_id` is null if the app is installed in a whole organisation. The list may be empty
        // or missing: then `context_team_id` is the workspace through which the app gets the event,
        // and `team_id`, the last resort, where it happened. The same holds for organisations.
        let installs = mem::take(&mut self.authorizations).into_iter();
        let (workspaces, organisations): (Vec<_>, Vec<_>) =
            installs.map(|install| (install.team_id, install.enterprise_id)).unzip();
        let places = [&self.context_team_id, &self.team_id];
        let workspaces = first_that_names(workspaces, places);
        let places = [&self.context_enterprise_id, &self.enterprise_id];
        Teams { workspaces, organisations: first_that_names(organisations, places) }
    }
}

/// Returns the ids that are not empty, or else the first of the others that is not.
fn first_that_names<'a>(
    mut ids: Vec<Cow<'a, str>>,
    others: [&Cow<'a, str>; 2],
) -> Vec<Cow<'a, str>> {
    ids.retain(|id| !id.is_empty());
    if ids.is_empty() {
        ids.extend(others.into_iter().find(|id| !id.is_empty()).cloned());
    }
    ids
}

#[derive(Default)]
struct Authorization<'a> {
    team_id: Cow<'a, str>,
    enterprise_id: Cow<'a, str>,
}

impl<'de> Lenient<'de> for Authorization<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        match key {
            "team_id" => read(object, &mut self.team_id),
            "enterprise_id" => read(object, &mut self.enterprise_id),
            _ => skip(object),
        }
    }
}

impl<'de> Lenient<'de> for Outer<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, object: &mut A) -> Result<(), A::Error> {
        self.span.note_key(key);
        match key {
            "type" => read(object, &mut self.kind),
            "challenge" => read(object, &mut self.challenge),
            "team_id" => read(object, &mut self.team_id),
            "enterprise_id" => read(object, &mut self.enterprise_id),
            "context_team_id" => read(object, &mut self.context_team_id),
            "context_enterprise_id" => read(object, &mut self.context_enterprise_id),
            "authorizations" => read(object, &mut self.authorizations),
            "event_id" => read(object, &mut self.event_id),
            "event_time" => read(object, &mut self.event_time),
            "minute_rate_limited" => read(object, &mut self.minute_rate_limited),
            "event" => read(object, &mut self.event),
            _ => skip(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::{event_span::SecondPass, *};

    macro_rules! payload {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/slack/", $name))
        };
    }

    fn callback(text: &str) -> Callback<'_> {
        let Envelope::Event(callback) = parse(text).unwrap() else {
            panic!("no event: {text}");
        };
        callback
    }

    proptest! {
        #[test]
        fn the_event_is_found_where_the_parser_finds_it(
            members in vec((key(), json()), 0..6),
            gap in "[ \t\n\r]{0,2}",
        ) {
            let members = members.iter();
            let members = members.map(|(key, value)| format!("{gap}\"{key}\"{gap}:{gap}{value}"));
            let text = format!("{gap}{{{}{gap}}}{gap}", members.collect::<Vec<_>>().join(","));
            let parsed = lenient::parse::<SecondPass<'_>>(&text).unwrap().event;
            prop_assert_eq!(inner_event(&text), parsed, "{}", text);
        }
    }

    fn key() -> impl Strategy<Value = &'static str> {
        select(&["event", "event", "ev\\u0065nt", "a\\\"b", "x", "events", ""][..])
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = select(
            &["1", "null", "\"\"", "\"}\"", "\"a\\\\\"", "\"\\\"{\"", "{}", "[]", "\"event\""][..],
        );
        leaf.prop_map(str::to_owned).prop_recursive(3, 16, 4, |inner| {
            let object = vec((key(), inner.clone()), 0..4).prop_map(|members| {
                let members = members.iter().map(|(key, value)| format!("\"{key}\": {value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
            });
            prop_oneof![object, vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(",")))]
        })
    }

    #[test]
    fn the_challenge_is_read() {
        let Envelope::UrlVerification { challenge } =
            parse(payload!("url_verification.json")).unwrap()
        else {
            panic!("not a verification");
        };
        assert_eq!(challenge, "k3YfQ0nB7hVwPz1sLrTdXaJmC9uEoGi5");
    }

    #[test]
    fn an_event_is_read_without_copying() {
        let callback = callback(payload!("event_callback.json"));
        assert_eq!((&*callback.team_id, &*callback.event_id), ("T0RELAYTEAM", "Ev0RELAY0001"));
        assert_eq!(callback.event_time, 1_600_689_944);
        assert!(matches!(callback.team_id, Cow::Borrowed(_)));
        let Event::Message(message) = callback.event else { panic!("{:?}", callback.event) };
        assert_eq!((&*message.channel, &*message.ts), ("C0123456789", "1600689944.000500"));
        let (_, attachment) = message.attachments.iter().next().unwrap();
        assert!(matches!(attachment.title, Cow::Borrowed(_)));
    }

    #[test]
    fn an_install_for_a_whole_organisation_is_read() {
        let callback = callback(payload!("org_wide_install.json"));
        assert_eq!(callback.team_id, "T0SOURCE001");
        assert!(matches!(callback.event, Event::Message(_)));
        for (team, is_its) in [("T0RELAYTEAM", true), ("E0RELAYORG1", true), ("T0SOURCE001", false)]
        {
            let teams = &callback.teams;
            let named = teams.name_workspace(team) || teams.name_organisation(team);
            assert_eq!(named, is_its, "{team}");
        }
    }

    #[test]
    fn the_installs_of_a_body_are_read_from_the_best_place_that_names_one() {
        for (members, teams) in [
            (r#""authorizations":[{"team_id":"T1"},{"team_id":"T2"}],"team_id":"T3""#, "T1 T2 /"),
            (
                r#""authorizations":[{"team_id":null}],"context_team_id":"T2","team_id":"T3""#,
                "T2 /",
            ),
            (r#""authorizations":[],"context_team_id":null,"team_id":"T3""#, "T3 /"),
            (r#""authorizations":[{"team_id":"T1","enterprise_id":"E1"}]"#, "T1 / E1"),
            (
                r#""authorizations":[{"team_id":null,"enterprise_id":"E1",
                    "is_enterprise_install":true}],"enterprise_id":"E2","team_id":"T3""#,
                "T3 / E1",
            ),
            (r#""authorizations":7,"team_id":"","enterprise_id":"E1""#, "/ E1"),
            (r#""authorizations":[],"team_id":"T3","enterprise_id":"E1""#, "T3 / E1"),
            (
                r#""context_team_id":"T2","context_enterprise_id":"E1","team_id":"T3",
                    "enterprise_id":"E2""#,
                "T2 / E1",
            ),
            (r#""context_team_id":null,"context_enterprise_id":"E1","team_id":"T3""#, "T3 / E1"),
            (r#""x":1"#, "/"),
        ] {
            let text = format!(r#"{{"type":"event_callback",{members}}}"#);
            let Teams { workspaces, organisations } = callback(&text).teams;
            let named = format!("{} / {}", workspaces.join(" "), organisations.join(" "));
            assert_eq!(named.trim(), teams, "{members}");
        }
    }

    #[test]
    fn a_rate_limit_is_read_at_both_places() {
        for text in [
            payload!("app_rate_limited.json"),
            payload!("app_rate_limited_nested.json"),
            r#"{"type":"event_callback","minute_rate_limited":1518467820,
                "event":{"type":"app_rate_limited"}}"#,
        ] {
            let Envelope::AppRateLimited { minute, .. } = parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(minute, 1_518_467_820);
        }
    }

    #[test]
    fn every_lifecycle_event_is_known_by_its_word() {
        for kind in Lifecycle::ALL {
            let text = format!(
                r#"{{"type":"event_callback","event":{{"type":"{}","channel":{{"id":"C1"}}}}}}"#,
                kind.label()
            );
            let Event::Lifecycle(read) = callback(&text).event else { panic!("{text}") };
            assert_eq!(read, kind);
        }
    }

    #[test]
    fn tokens_revoked_with_its_lists_is_a_lifecycle_event() {
        let callback = callback(payload!("tokens_revoked.json"));
        assert!(matches!(callback.event, Event::Lifecycle(Lifecycle::TokensRevoked)));
    }

    #[test]
    fn an_event_type_of_tomorrow_is_other() {
        let callback = callback(payload!("unknown_event_type.json"));
        assert!(matches!(callback.event, Event::Other));
    }

    #[test]
    fn an_envelope_type_of_tomorrow_is_unknown() {
        for text in ["{}", r#"{"type":"event_batch"}"#, r#"{"type":7}"#, r#"{"type":["message"]}"#]
        {
            assert!(matches!(parse(text), Ok(Envelope::Unknown)), "{text}");
        }
    }

    #[test]
    fn a_callback_without_a_readable_event_is_other() {
        for event in ["null", "7", "[]", "\"message\"", "{}", r#"{"type":null}"#] {
            let text = format!(r#"{{"type":"event_callback","event":{event}}}"#);
            let callback = callback(&text);
            assert!(matches!(callback.event, Event::Other), "{text}");
            assert_eq!((&*callback.event_id, callback.event_time), ("", 0));
        }
    }

    #[test]
    fn a_type_behind_its_fields_is_found() {
        let text = r#"{"event":{"ts":"1.000002","channel":"C1","type":"message"},
            "type":"event_callback"}"#;
        let Event::Message(message) = callback(text).event else { panic!("no message") };
        assert_eq!(message.ts, "1.000002");
    }

    #[test]
    fn what_is_no_object_is_unparsable() {
        for text in ["", "payload=%7B%7D", "[]", "{", r#"{"type":"event_callback""#] {
            assert_eq!(parse(text).unwrap_err(), Unparsable, "{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_levels_are_ignored_or_unparsable() {
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        let deep = format!(
            r#"{{"type":"event_callback","event":{{"type":"message","blocks":{open}{close}}}}}"#
        );
        assert!(matches!(callback(&deep).event, Event::Message(_)));
        assert!(inner_event(&deep).is_some());
        let events = r#"{"event":"#.repeat(100_000);
        assert!(parse(&events).is_err() && inner_event(&events).is_none());
        let edits =
            format!(r#"{{"type":"event_callback","event":{}1"#, r#"{"message":"#.repeat(100_000));
        assert!(parse(&edits).is_err());
    }

    #[test]
    fn the_inner_event_is_kept_to_the_byte() {
        let event = "{ \"text\" : \"a\\u0041\\/\",\n\t\"x\": [ 1.0, 1e5 ] }";
        let text = format!(r#"{{"token":"t","event": {event} ,"type":"event_callback"}}"#);
        assert_eq!(inner_event(&text), Some(event));
        assert_eq!(inner_event(r#"{"event":{},"\u0065vent":{"a":1}}"#), Some(r#"{"a":1}"#));
        assert_eq!(inner_event("{}"), None);
    }
}
