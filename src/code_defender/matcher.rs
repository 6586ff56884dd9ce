//! Tells Code Defender incidents from everything else that is posted.
//!
//! `intake` asks [`Matcher::judge`] about every message, `delivery` and `ops` read a stored
//! attachment again with [`Matcher::incident`]. Whether the post is by our own app plays no part:
//! the vendor posts through that app's incoming webhook.

use std::ops::Deref;

use regex::Regex;

use crate::{
    code_defender::{
        incident::{Incident, Problem, TOO_MANY, TS, has_field, is_console, same_title},
        risk_level::RiskLevel,
    },
    ids::{ChannelId, TsKey},
    slack::{
        message::{Attachment, Message},
        mrkdwn,
    },
};

/// What an incident looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The titles of incidents.
    pub titles: Vec<TitlePattern>,
    /// The titles of their fields.
    pub fields: FieldTitles,
}

impl Default for Settings {
    fn default() -> Self {
        let title = "Code Defender has detected a new incident";
        Self {
            titles: vec![TitlePattern(Pattern::Text(title.to_owned()))],
            fields: FieldTitles::default(),
        }
    }
}

/// The titles of an incident's fields, in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTitles {
    /// Of the script.
    pub script: Vec<String>,
    /// Of the risk level.
    pub risk: Vec<String>,
    /// Of the host domain.
    pub host: Vec<String>,
}

impl Default for FieldTitles {
    fn default() -> Self {
        let owned = |titles: [&str; 2]| titles.map(str::to_owned).to_vec();
        Self {
            script: owned(["Script", "Script URL"]),
            risk: owned(["Risk Level", "Severity"]),
            host: owned(["Host Domain", "Domain"]),
        }
    }
}

/// One title of incidents: a text that must be equal but for case and surrounding white space, or
/// a `/regular expression/` that must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TitlePattern(Pattern);

#[derive(Clone, Debug)]
enum Pattern {
    Text(String),
    Regex(Regex),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            (Self::Text(_), Self::Regex(_)) | (Self::Regex(_), Self::Text(_)) => false,
        }
    }
}

impl Eq for Pattern {}

/// Why a text is no title pattern.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TitleError {
    /// It would match attachments without a title.
    #[error("a title must not be empty")]
    Empty,
    /// The regular expression has a fault.
    #[error("the title `{pattern}` is no regular expression")]
    Regex {
        /// The expression.
        pattern: String,
        /// The fault.
        #[source]
        source: regex::Error,
    },
}

impl TitlePattern {
    /// Reads a title from the configuration.
    ///
    /// ```
    /// use slack_soar_relay::code_defender::matcher::TitlePattern;
    /// let title = TitlePattern::parse("/(?i)new (incident|finding)$/").unwrap();
    /// assert!(title.matches("Client-side Defense: New Finding"));
    /// assert!(TitlePattern::parse("new incident").unwrap().matches(" New Incident "));
    /// ```
    ///
    /// # Errors
    /// [`TitleError`] if it is empty or no regular expression.
    pub fn parse(text: &str) -> Result<Self, TitleError> {
        let inside = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let pattern = inside.unwrap_or(text).trim();
        if pattern.is_empty() {
            return Err(TitleError::Empty);
        }
        if inside.is_none() {
            return Ok(Self(Pattern::Text(pattern.to_owned())));
        }
        let regex = Regex::new(pattern)
            .map_err(|source| TitleError::Regex { pattern: pattern.to_owned(), source })?;
        Ok(Self(Pattern::Regex(regex)))
    }

    /// The title itself, unless it is a regular expression.
    pub fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Pattern::Text(text) => Some(text),
            Pattern::Regex(_) => None,
        }
    }

    /// Whether a title, entities decoded, is one of incidents.
    pub fn matches(&self, title: &str) -> bool {
        match &self.0 {
            Pattern::Text(text) => same_title(title, text),
            Pattern::Regex(regex) => {
                regex.is_match(title.trim()) || regex.is_match(&mrkdwn::label(title))
            }
        }
    }
}

/// Where and by whom incidents are posted, for one app.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Only in these channels; empty for all.
    pub channels: Vec<ChannelId>,
    /// Only by these, each a `bot_id` or an `app_id`; empty for all.
    pub bots: Vec<String>,
}

/// What a message is.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It holds at least one incident.
    Incidents(Vec<Found>),
    /// It holds none.
    Ignored(Reason),
}

/// The most incidents of a message that are alerts of their own, as many as Slack takes
/// attachments (`docs.slack.dev/reference/methods/chat.postMessage`, `too_many_attachments`). All
/// others together are one more, whose ordinal is this number.
pub const MOST_INCIDENTS: u32 = 100;

/// Returns the `parse_problems` of an alert: what could not be read of its incident, number
/// `ordinal` of the message with that timestamp.
pub fn parse_problems(incident: &Incident, ordinal: u32, ts: TsKey) -> Vec<&'static str> {
    let too_many = (ordinal == MOST_INCIDENTS).then_some(TOO_MANY);
    let without_ts = matches!(ts, TsKey::Digest(_)).then_some(TS);
    let of_incident = incident.problems().into_iter().map(Problem::label);
    too_many.into_iter().chain(without_ts).chain(of_incident).collect()
}

/// An incident and where in the message it was.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which of the matching attachments it is, from 0.
    pub ordinal: u32,
    /// Which of all attachments it is, from 0.
    pub attachment: u32,
    /// What it says.
    pub incident: Incident,
}

/// Why a message holds no incident for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// No attachment has a title of incidents.
    Title,
    /// So it is, but a bot posted it with an incident's fields or a link into the console: the
    /// vendor may have renamed the title.
    NearMiss,
    /// Not posted by a bot.
    NoBot,
    /// Posted by a bot that is not on the list.
    BotNotAllowed,
    /// Posted in a channel that is not on the list.
    Channel,
    /// The title is that of a page or a message that was linked to.
    Unfurl,
    /// No kind of message that incidents come as.
    Subtype,
}

impl Reason {
    /// The word in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::NearMiss => "near_miss",
            Self::NoBot => "no_bot",
            Self::BotNotAllowed => "bot_not_allowed",
            Self::Channel => "channel",
            Self::Unfurl => "unfurl",
            Self::Subtype => "subtype",
        }
    }
}

/// A post by a current app has no subtype, one by a classic app or webhook is a `bot_message`
/// (`docs.slack.dev/reference/events/message`).
const SUBTYPES: [&str; 4] = ["", "bot_message", "thread_broadcast", "message_changed"];

/// Decides what is an incident.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    settings: Settings,
}

impl Matcher {
    /// A matcher for incidents that look like this.
    pub fn new(mut settings: Settings) -> Self {
        let FieldTitles { script, risk, host } = &mut settings.fields;
        for title in [script, risk, host].into_iter().flatten() {
            // Once here, not for each field of each message.
            *title = mrkdwn::label(title).into_owned();
        }
        Self { settings }
    }

    /// Finds the incidents of a message, or the first reason why it has none.
    pub fn judge(&self, message: &Message<'_>, watch: &Watch) -> Verdict {
        if !SUBTYPES.contains(&&*message.subtype) {
            return Verdict::Ignored(Reason::Subtype);
        }
        if !watch.has_channel(&message.channel) {
            return Verdict::Ignored(Reason::Channel);
        }
        let titled = || message.attachments.iter().filter(|(_, it)| self.has_title(it));
        let matching = || titled().filter(|(_, attachment)| !attachment.is_unfurl);
        if matching().next().is_none() {
            return Verdict::Ignored(if titled().next().is_some() {
                Reason::Unfurl
            } else if self.is_near_miss(message) {
                Reason::NearMiss
            } else {
                Reason::Title
            });
        }
        if message.bot_id.is_empty() {
            return Verdict::Ignored(Reason::NoBot);
        }
        if !watch.has_bot(message) {
            return Verdict::Ignored(Reason::BotNotAllowed);
        }
        let mut matching = matching();
        let own = (0..MOST_INCIDENTS).zip(&mut matching).map(|(ordinal, (attachment, it))| Found {
            ordinal,
            attachment,
            incident: self.incident(&it),
        });
        let mut found: Vec<Found> = own.collect();
        found.extend(self.rest(matching));
        Verdict::Incidents(found)
    }

    /// The alert that stands for all further incidents: the first of the most severe ones, so that
    /// no destination leaves it out for what is less than the worst of them.
    fn rest<'a, A: Deref<Target = Attachment<'a>>>(
        &self,
        further: impl Iterator<Item = (u32, A)>,
    ) -> Option<Found> {
        let mut worst: Option<((bool, RiskLevel), u32, A)> = None;
        for (place, attachment) in further {
            let weight = Incident::weight(&attachment, &self.settings.fields);
            if worst.as_ref().is_none_or(|(known, ..)| *known < weight) {
                worst = Some((weight, place, attachment));
            }
        }
        let (_, attachment, it) = worst?;
        Some(Found { ordinal: MOST_INCIDENTS, attachment, incident: self.incident(&it) })
    }

    /// Reads an attachment as an incident, whatever its title.
    pub fn incident(&self, attachment: &Attachment<'_>) -> Incident {
        Incident::read(attachment, &self.settings.fields)
    }

    fn has_title(&self, attachment: &Attachment<'_>) -> bool {
        let title = mrkdwn::unescape(&attachment.title);
        self.settings.titles.iter().any(|pattern| pattern.matches(&title))
    }

    fn is_near_miss(&self, message: &Message<'_>) -> bool {
        let mut own = message.attachments.iter().filter(|(_, attachment)| !attachment.is_unfurl);
        !message.bot_id.is_empty() && own.any(|(_, attachment)| self.resembles(&attachment))
    }

    fn resembles(&self, attachment: &Attachment<'_>) -> bool {
        let fields = &self.settings.fields;
        has_field(attachment, &fields.script)
            || (has_field(attachment, &fields.risk) && has_field(attachment, &fields.host))
            || attachment.actions.iter().any(|button| is_console(&button.url))
            || is_console(&attachment.title_link)
    }
}

impl Watch {
    fn has_channel(&self, channel: &str) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|watched| watched.as_str() == channel)
    }

    fn has_bot(&self, message: &Message<'_>) -> bool {
        let allowed = |bot: &String| *bot == message.bot_id || *bot == message.app_id;
        self.bots.is_empty() || self.bots.iter().any(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        code_defender::incident::Problem,
        slack::{envelope, message},
    };

    const TITLE: &str = "Code Defender has detected a new incident";

    macro_rules! payload {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/slack/", $name))
        };
    }

    fn judge_with(raw: &str, watch: &Watch) -> Verdict {
        Matcher::default().judge(&message::parse(raw).unwrap(), watch)
    }

    fn found(raw: &str) -> Vec<Found> {
        match judge_with(raw, &Watch::default()) {
            Verdict::Incidents(found) => found,
            Verdict::Ignored(reason) => panic!("ignored: {}\n{raw}", reason.label()),
        }
    }

    fn reason(raw: &str) -> &'static str {
        reason_with(raw, &Watch::default())
    }

    fn reason_with(raw: &str, watch: &Watch) -> &'static str {
        match judge_with(raw, watch) {
            Verdict::Ignored(reason) => reason.label(),
            Verdict::Incidents(found) => panic!("{} incidents\n{raw}", found.len()),
        }
    }

    /// A post by a bot with these attachments.
    fn post(attachments: &str) -> String {
        format!(
            r#"{{"type":"message","channel":"C1","ts":"1.000001","bot_id":"B1",
            "attachments":[{attachments}]}}"#
        )
    }

    fn titled(rest: &str) -> String {
        format!(r#"{{"title":"{TITLE}"{rest}}}"#)
    }

    mod what_is_an_incident {
        use super::*;

        #[test]
        fn a_post_by_our_own_app_is_an_incident() {
            let text = payload!("own_app_post.json");
            let raw = envelope::inner_event(text).unwrap();
            assert!(text.contains(r#""api_app_id": "A0RELAYAPP1""#));
            assert!(raw.contains(r#""app_id": "A0RELAYAPP1""#));
            assert_eq!(found(raw).len(), 1);
        }

        #[test]
        fn a_post_in_any_shape_that_a_bot_has_is_an_incident() {
            for raw in [
                payload!("no_subtype.json"),
                payload!("bot_message.json"),
                payload!("thread_broadcast.json"),
                payload!("edit_of_an_incident.json"),
            ] {
                assert_eq!(found(raw).len(), 1);
            }
        }

        #[test]
        fn every_matching_attachment_is_one_and_keeps_its_place() {
            let found = found(payload!("incidents_among_others.json"));
            let places: Vec<_> = found.iter().map(|it| (it.ordinal, it.attachment)).collect();
            assert_eq!(places, [(0, 1), (1, 3)]);
            let scripts: Vec<_> = found.iter().map(|it| &*it.incident.script.url).collect();
            assert_eq!(scripts, ["first.example/a.js", "second.example/b.js"]);
        }

        #[test]
        fn a_hundred_attachments_are_a_hundred_incidents() {
            let found = found(&post(&vec![titled(""); 100].join(",")));
            assert_eq!(found.len(), 100);
            assert!((0..).zip(&found).all(|(at, it)| it.ordinal == at && it.attachment == at));
        }

        #[test]
        fn the_incidents_after_the_hundredth_are_one_by_their_most_severe() {
            let of = |level: &str| {
                titled(&format!(r#","fields":[{{"title":"Risk Level","value":"{level}"}}]"#))
            };
            let mut all = vec![of("Critical"); 100];
            all.extend(["Low", "Medium", "High", "Low", "High"].map(of));
            all.push(titled(
                r#","text":"Test from HUMAN","fields":[{"title":"Risk Level","value":"Critical"}]"#,
            ));
            all.insert(7, r#"{"title":"Build passed"}"#.to_owned());
            let found = found(&post(&all.join(",")));
            assert_eq!(found.len(), 101);
            let rest = &found[100];
            assert_eq!((rest.ordinal, rest.attachment), (MOST_INCIDENTS, 103));
            assert_eq!(rest.incident.risk.level, RiskLevel::High);
        }

        #[test]
        fn an_incident_behind_any_number_of_other_attachments_is_found() {
            for others in [99, 127, 128, 129, 5_000] {
                let mut all = vec![r#"{"title":"Build passed"}"#.to_owned(); others];
                all.push(titled(""));
                let found = found(&post(&all.join(",")));
                let place = usize::try_from(found[0].attachment).unwrap();
                assert_eq!((found.len(), found[0].ordinal, place), (1, 0, others));
            }
        }

        #[test]
        fn titles_come_from_the_settings() {
            let titles = ["Finding &amp; Co", "/^Client-side .* incident$/"];
            let settings = Settings {
                titles: titles
                    .map(|title| TitlePattern::parse(&mrkdwn::unescape(title)).unwrap())
                    .to_vec(),
                fields: FieldTitles::default(),
            };
            let matcher = Matcher::new(settings);
            for (title, is_incident) in [
                ("finding &amp; CO", true),
                (" Client-side Defense has a new incident\\n", true),
                ("client-side Defense has a new incident", false),
                (TITLE, false),
                ("", false),
            ] {
                let raw = post(&format!(r#"{{"title":"{title}"}}"#));
                let verdict = matcher.judge(&message::parse(&raw).unwrap(), &Watch::default());
                assert_eq!(matches!(verdict, Verdict::Incidents(_)), is_incident, "{title}");
            }
        }

        #[test]
        fn titles_of_fields_may_be_configured_as_slack_shows_them_or_writes_them() {
            let raw = post(&titled(r#","fields":[{"title":"r&amp;d level","value":"Low"}]"#));
            for title in ["R&D Level", "*R&amp;D Level:*", " R&D  LEVEL "] {
                let fields = FieldTitles { risk: vec![title.to_owned()], ..FieldTitles::default() };
                let matcher = Matcher::new(Settings { fields, ..Settings::default() });
                let message = message::parse(&raw).unwrap();
                let (_, attachment) = message.attachments.iter().next().unwrap();
                assert_eq!(matcher.incident(&attachment).risk.level, RiskLevel::Low, "{title}");
            }
        }

        #[test]
        fn a_title_beyond_ascii_is_matched_in_any_case() {
            assert!(TitlePattern::parse("Neuer VORFALL: Ü").unwrap().matches("neuer vorfall: ü"));
        }

        #[test]
        fn a_title_that_would_match_everything_or_is_broken_is_refused() {
            for text in ["", "  ", "//", "/ /"] {
                assert!(matches!(TitlePattern::parse(text), Err(TitleError::Empty)), "{text}");
            }
            assert!(matches!(TitlePattern::parse("/(/"), Err(TitleError::Regex { .. })));
            assert!(TitlePattern::parse("/").unwrap().matches("/"));
        }
    }

    mod what_is_ignored {
        use super::*;

        #[test]
        fn chatter_is_ignored_for_its_title() {
            assert_eq!(reason(payload!("chatter.json")), "title");
            assert_eq!(reason(&post("")), "title");
            assert_eq!(reason(&post(r#"null, 7, {"title": null}"#)), "title");
        }

        #[test]
        fn a_person_that_links_to_a_page_with_our_title_forges_nothing() {
            assert_eq!(reason(payload!("unfurl_forgery.json")), "unfurl");
            let by_bot = post(&titled(r#","from_url":"https://evil.example""#));
            assert_eq!(reason(&by_bot), "unfurl");
        }

        #[test]
        fn an_unfurl_beside_an_incident_is_not_counted() {
            let unfurl = titled(r#","is_msg_unfurl":true"#);
            let found = found(&post(&format!("{unfurl},{}", titled(""))));
            assert_eq!((found.len(), found[0].ordinal, found[0].attachment), (1, 0, 1));
        }

        #[test]
        fn a_person_is_no_bot() {
            assert_eq!(reason(payload!("posted_by_a_person.json")), "no_bot");
        }

        #[test]
        fn message_replied_without_its_subtype_is_no_incident() {
            assert_eq!(reason(payload!("message_replied.json")), "title");
        }

        #[test]
        fn every_other_subtype_is_refused_whatever_it_holds() {
            for subtype in ["message_deleted", "message_replied", "file_share", "me_message", "x"] {
                let raw = post(&titled("")).replacen(
                    r#""ts""#,
                    &format!(r#""subtype":"{subtype}","ts""#),
                    1,
                );
                assert_eq!(reason(&raw), "subtype");
            }
        }

        #[test]
        fn a_channel_that_is_not_watched_is_ignored() {
            let raw = post(&titled(""));
            let watch = |channels: &[&str]| Watch {
                channels: channels.iter().map(|id| ChannelId::new(id)).collect(),
                bots: vec![],
            };
            assert_eq!(reason_with(&raw, &watch(&["C2", "c1"])), "channel");
            assert!(matches!(judge_with(&raw, &watch(&["C2", "C1"])), Verdict::Incidents(_)));
        }

        #[test]
        fn a_bot_is_allowed_by_its_bot_id_or_its_app_id() {
            let raw = post(&titled("")).replacen('{', r#"{"app_id":"A1","#, 1);
            for (bots, allowed) in
                [(vec!["B1"], true), (vec!["B2", "A1"], true), (vec!["B2"], false)]
            {
                let bots = bots.into_iter().map(str::to_owned).collect();
                let watch = Watch { channels: vec![], bots };
                match judge_with(&raw, &watch) {
                    Verdict::Incidents(_) => assert!(allowed),
                    Verdict::Ignored(reason) => {
                        assert_eq!((reason, allowed), (Reason::BotNotAllowed, false));
                    }
                }
            }
        }

        #[test]
        fn an_unlisted_bot_without_an_app_id_is_not_let_in_by_an_empty_entry() {
            let watch = Watch { channels: vec![], bots: vec!["B2".to_owned()] };
            assert_eq!(reason_with(&post(&titled("")), &watch), "bot_not_allowed");
        }

        #[test]
        fn of_several_reasons_the_first_in_order_is_given() {
            let nowhere =
                Watch { channels: vec![ChannelId::new("C2")], bots: vec!["B2".to_owned()] };
            let raw = post(&titled("")).replace(r#","bot_id":"B1""#, "");
            assert_eq!(
                reason_with(&raw.replacen('{', r#"{"subtype":"x","#, 1), &nowhere),
                "subtype"
            );
            assert_eq!(reason_with(&raw, &nowhere), "channel");
            let here = Watch { channels: vec![], ..nowhere };
            assert_eq!(reason_with(&raw, &here), "no_bot");
        }

        #[test]
        fn a_renamed_incident_is_a_near_miss() {
            assert_eq!(reason(payload!("renamed_title.json")), "near_miss");
            for attachment in [
                r#"{"fields":[{"title":"script url"}]}"#,
                r#"{"fields":[{"title":"Severity"},{"title":"Domain"}]}"#,
                r#"{"actions":[{"url":"https://console.humansecurity.com/x"}]}"#,
                r#"{"title_link":"https://console.perimeterx.com/x"}"#,
            ] {
                assert_eq!(reason(&post(attachment)), "near_miss", "{attachment}");
                let by_a_person = post(attachment).replace(r#","bot_id":"B1""#, "");
                assert_eq!(reason(&by_a_person), "title", "{attachment}");
            }
            for attachment in [
                r#"{"fields":[{"title":"Severity"},{"title":"Status"}]}"#,
                r#"{"fields":[{"title":"Domain"}]}"#,
                r#"{"from_url":"https://a","title_link":"https://console.perimeterx.com/x"}"#,
            ] {
                assert_eq!(reason(&post(attachment)), "title", "{attachment}");
            }
        }
    }

    /// What made the article's connector lose alerts or stop, each on the input that did it.
    mod the_predecessor {
        use super::*;

        #[test]
        fn did_1_crash_on_an_attachment_without_a_title_before_the_incident() {
            assert_eq!(found(payload!("untitled_before_the_incident.json")).len(), 1);
        }

        #[test]
        fn did_2_crash_on_an_empty_list_of_attachments() {
            assert_eq!(reason(r#"{"type":"message","bot_id":"B1","attachments":[]}"#), "title");
        }

        #[test]
        fn did_5_drop_an_incident_for_its_severity() {
            for (value, level, recognised) in [
                (r#""Informational""#, RiskLevel::Informative, true),
                (r#""high""#, RiskLevel::High, true),
                (r#""""#, RiskLevel::High, false),
                (r#""Severe""#, RiskLevel::High, false),
                ("null", RiskLevel::High, false),
                ("5", RiskLevel::High, false),
            ] {
                let fields = format!(r#","fields":[{{"title":"Risk Level","value":{value}}}]"#);
                let risk = found(&post(&titled(&fields))).remove(0).incident.risk;
                assert_eq!((risk.level, risk.recognised), (level, recognised), "{value}");
            }
            let incident = found(&post(&titled(""))).remove(0).incident;
            assert!(incident.problems().contains(&Problem::SeverityMissing));
            assert!(incident.problems().contains(&Problem::ScriptMissing));
        }

        #[test]
        fn did_7_crash_on_an_incident_without_buttons_or_text() {
            let incident = found(&post(&titled(r#","fields":[]"#))).remove(0).incident;
            assert!(incident.problems().contains(&Problem::DeepLinkMissing));
            assert!(incident.problems().contains(&Problem::TextMissing));
        }

        #[test]
        fn did_8_see_only_the_first_attachment() {
            let other = r#"{"title":"Build passed"}"#;
            assert_eq!(found(&post(&format!("{other},{}", titled("")))).len(), 1);
            assert_eq!(found(&post(&format!("{},{}", titled(""), titled("")))).len(), 2);
        }

        #[test]
        fn did_11_miss_a_title_in_another_case_or_with_spaces() {
            for title in [
                TITLE.to_uppercase(),
                format!("  {TITLE} "),
                format!("{TITLE}\\n"),
                format!("*{TITLE}*"),
                format!("{TITLE}:"),
                format!("<https://console.example|{TITLE}>"),
                TITLE.replace(' ', "\u{a0}"),
            ] {
                assert_eq!(found(&post(&format!(r#"{{"title":"{title}"}}"#))).len(), 1, "{title}");
            }
        }

        #[test]
        fn did_12_leave_markup_in_the_script_and_the_host() {
            let fields = r#","fields":[{"title":"Script","value":"`<https://a.example/x.js>`"},
                {"title":"Host Domain","value":"<http://shop.example|shop.example>"}]"#;
            let incident = found(&post(&titled(fields))).remove(0).incident;
            assert_eq!(incident.script.url, "https://a.example/x.js");
            assert_eq!(incident.host.name, "shop.example");
        }
    }

    #[test]
    fn the_button_that_a_peer_drops_is_read() {
        let button = r#","actions":[{"type":"button","text":"Details",
            "url":"https://console.humansecurity.com/1"}]"#;
        let incident = found(&post(&titled(button))).remove(0).incident;
        assert_eq!(incident.deep_link, "https://console.humansecurity.com/1");
    }

    #[test]
    fn a_megabyte_in_the_title_is_judged_like_any_other() {
        let long = "x".repeat(1_000_000);
        assert_eq!(reason(&post(&format!(r#"{{"title":"{long}"}}"#))), "title");
        let spaces = " ".repeat(1_000_000);
        let found = found(&post(&format!(r#"{{"title":"{TITLE}{spaces}"}}"#)));
        assert!(found[0].incident.search_text().len() < 2_000);
    }

    #[test]
    fn a_broken_emoji_beside_an_incident_loses_nothing() {
        let raw = post(&titled(r#","text":"PII \ud83d!""#));
        assert!(message::parse(&raw).is_err());
        let found = found(&crate::slack::readable(raw.as_bytes()));
        assert_eq!(found[0].incident.category, "PII \u{fffd}!");
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        use Reason::{BotNotAllowed, Channel, NearMiss, NoBot, Subtype, Title, Unfurl};
        let words =
            [Title, NearMiss, NoBot, BotNotAllowed, Channel, Unfurl, Subtype].map(Reason::label);
        let expected =
            ["title", "near_miss", "no_bot", "bot_not_allowed", "channel", "unfurl", "subtype"];
        assert_eq!(words, expected);
    }
}
