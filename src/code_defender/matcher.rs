//! Tells Code Defender incidents from everything else that is posted.
//!
//! `intake` asks [`Matcher::judge`] about every message; `delivery` and `ops` read a stored
//! incident again with [`Matcher::incident_at`]. A post by our own app is judged like any other,
//! since the vendor posts through that app's incoming webhook. Only a message without an attachment
//! of the known layout is searched as a whole, which is slower.

use std::ops::Deref;

use super::{
    incident::Incident,
    labels::same_label,
    links::is_console,
    prefilter::Prefilter,
    risk_level::RiskLevel,
    settings::{FieldTitles, MatchSettings, TitlePattern},
    subtypes::NOT_POSTS,
    survey::Surveyor,
    verdict::{Doubt, FoundIncident, MOST_INCIDENTS, Reason, Verdict, Vouched, WHOLE_MESSAGE},
};
use crate::{
    ids::ChannelId,
    slack::{
        layout::{self, Layout},
        message::{Attachment, Message, Stored},
        mrkdwn,
    },
};

/// Channels and bots from which one app accepts incidents.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Accepted channels; every channel if empty.
    pub channels: Vec<ChannelId>,
    /// Accepted bots, each a `bot_id` or an `app_id`; every bot if empty.
    pub bots: Vec<String>,
}

/// Recognises and reads incidents by the configured titles.
#[derive(Clone, Debug)]
pub struct Matcher {
    surveyor: Surveyor,
    prefilter: Prefilter,
}

impl Default for Matcher {
    fn default() -> Self {
        Self::new(MatchSettings::default())
    }
}

impl Matcher {
    /// Creates a matcher for the configured titles.
    pub fn new(mut settings: MatchSettings) -> Self {
        let FieldTitles { script, risk, host } = &mut settings.fields;
        for title in [script, risk, host].into_iter().flatten() {
            // Normalised once here instead of for each field of each message.
            *title = mrkdwn::label(title).into_owned();
        }
        let texts = settings.titles.iter().map(TitlePattern::as_text);
        let prefilter = Prefilter::new(texts, &settings.fields);
        Self { surveyor: Surveyor::new(settings), prefilter }
    }

    /// Returns the incidents of a message, or the first reason why there are none. `raw` is the
    /// text that the message was parsed from.
    pub fn judge(&self, message: &Message<'_>, raw: &str, watch: &Watch) -> Verdict {
        if [&message.subtype, &message.post_subtype].iter().any(|it| NOT_POSTS.contains(&&***it)) {
            return Verdict::Ignored(Reason::Subtype);
        }
        let titled = || message.attachments.iter().filter(|(_, it)| self.has_title(it));
        let matching = || titled().filter(|(_, attachment)| !attachment.is_unfurl);
        if matching().next().is_none() {
            let is_unfurl = titled().next().is_some();
            return self.judge_layout(message, raw, watch, is_unfurl);
        }
        // From here on the message has the title of incidents, so a refusal is worth a warning.
        if !watch.has_channel(&message.channel) {
            return Verdict::Refused(Reason::Channel);
        }
        if !message.is_by_bot() {
            return Verdict::Refused(Reason::NoBot);
        }
        if !watch.has_bot(message) {
            return Verdict::Refused(Reason::BotNotAllowed);
        }
        let read = |_place, attachment: &Attachment<'_>| self.incident(attachment);
        Verdict::Incidents(read_all(matching(), self.surveyor.field_titles(), read))
    }

    /// Judges a message without an attachment of the known layout. `is_unfurl` tells that the title
    /// is that of an unfurled page or message.
    fn judge_layout(
        &self,
        message: &Message<'_>,
        raw: &str,
        watch: &Watch,
        is_unfurl: bool,
    ) -> Verdict {
        let in_channel = watch.has_channel(&message.channel);
        let layout = if self.prefilter.may_hold(raw) {
            layout::parse(raw, message.is_edit_event()).unwrap_or_default()
        } else {
            Layout::default()
        };
        let survey = self.surveyor.survey(&layout);
        let resembling = || {
            let own = message.attachments.iter().filter(|(_, attachment)| !attachment.is_unfurl);
            own.filter(|(_, attachment)| self.resembles(attachment))
        };
        let has_evidence = survey.has_evidence || resembling().next().is_some();
        let has_title = survey.has_title || survey.quotes_title || is_unfurl;
        if !in_channel {
            return if has_title {
                Verdict::Refused(Reason::Channel)
            } else {
                Verdict::Ignored(Reason::Channel)
            };
        }
        let is_own = message.is_by_bot() && has_evidence;
        if !survey.has_title && is_unfurl && !is_own {
            return Verdict::Refused(Reason::Unfurl);
        }
        if !message.is_by_bot() {
            return if has_title {
                Verdict::Refused(Reason::NoBot)
            } else {
                Verdict::Ignored(Reason::Title)
            };
        }
        let read_places = |places: &[u32]| -> Vec<FoundIncident> {
            let read = |(ordinal, place): (u32, &u32)| FoundIncident {
                ordinal,
                attachment: *place,
                incident: self.surveyor.read_anywhere(&layout, *place),
            };
            (0..MOST_INCIDENTS).zip(places).map(read).collect()
        };
        let renamed =
            |place, attachment: &Attachment<'_>| self.read(&layout, place, Some(attachment));
        // Title and evidence together are an incident; either alone is a near miss.
        match (survey.has_title, has_evidence) {
            (true, true) => {
                let places =
                    if survey.places.is_empty() { &[WHOLE_MESSAGE] } else { &*survey.places };
                let found = read_places(places);
                if message.is_reply() {
                    Verdict::NearMiss(found, Doubt::Reply)
                } else if watch.bots.is_empty() {
                    Verdict::NewLayout(found, Vouched::ByNobody)
                } else if watch.has_bot(message) {
                    Verdict::NewLayout(found, Vouched::ByList)
                } else {
                    Verdict::NearMiss(found, Doubt::Bot)
                }
            }
            (true, false) => Verdict::NearMiss(read_places(&[WHOLE_MESSAGE]), Doubt::Evidence),
            (false, _) if survey.quotes_title => {
                Verdict::NearMiss(read_places(&[WHOLE_MESSAGE]), Doubt::Quoted)
            }
            (false, true) => {
                let mut found = read_all(resembling(), self.surveyor.field_titles(), renamed);
                if found.is_empty() {
                    found = read_places(&[WHOLE_MESSAGE]);
                }
                Verdict::NearMiss(found, Doubt::Title)
            }
            (false, false) => Verdict::Ignored(Reason::Title),
        }
    }

    /// Reads an attachment as an incident, whatever its title.
    pub fn incident(&self, attachment: &Attachment<'_>) -> Incident {
        Incident::read(attachment, self.surveyor.field_titles())
    }

    /// Reads the incident at a place of a stored message, as in [`FoundIncident::attachment`].
    /// Returns `None` if the message has nothing at that place.
    pub fn incident_at(&self, stored: &Stored<'_>, place: u32) -> Option<Incident> {
        let mut attachment = None;
        if place != WHOLE_MESSAGE {
            let (found, _raw) = stored.attachment(place)?;
            if self.has_title(&found) {
                return Some(self.incident(&found));
            }
            attachment = Some(found);
        }
        let layout = layout::parse(stored.raw, stored.is_edit_event).ok()?;
        Some(self.read(&layout, place, attachment.as_ref()))
    }

    /// Returns whether one attachment has the known layout of an incident, and an explanation.
    pub fn explain(&self, attachment: &Attachment<'_>) -> (bool, &'static str) {
        match (self.has_title(attachment), attachment.is_unfurl, self.resembles(attachment)) {
            (true, false, _) => (true, "it has the title of incidents"),
            (true, true, _) => (false, "it has the title, and is a page or message linked to"),
            (false, _, true) => (false, "it has fields or a console link, and another title"),
            (false, _, false) => (false, "it has neither the title nor fields nor a console link"),
        }
    }

    /// Reads a message as one incident although nothing in the message looks like one.
    pub fn read_as_incident(&self, raw: &str, message: &Message<'_>) -> Vec<FoundIncident> {
        let layout = layout::parse(raw, message.is_edit_event()).unwrap_or_default();
        let incident = self.surveyor.read_anywhere(&layout, WHOLE_MESSAGE);
        vec![FoundIncident { ordinal: 0, attachment: WHOLE_MESSAGE, incident }]
    }

    /// Reads an incident that does not have the known layout.
    fn read(&self, layout: &Layout<'_>, place: u32, own: Option<&Attachment<'_>>) -> Incident {
        let is_renamed = |it: &&Attachment<'_>| !it.title.is_empty() && self.resembles(it);
        // An attachment with another title has its fields in the known places, unless the known
        // title is in another part of the attachment.
        match own.filter(is_renamed).filter(|_| !self.surveyor.is_titled(layout, place)) {
            Some(attachment) => self.incident(attachment),
            None => self.surveyor.read_anywhere(layout, place),
        }
    }

    fn has_title(&self, attachment: &Attachment<'_>) -> bool {
        self.surveyor.is_title(&mrkdwn::unescape(&attachment.title))
    }

    /// Returns whether an attachment has the fields of an incident, or a link to the console.
    fn resembles(&self, attachment: &Attachment<'_>) -> bool {
        let fields = self.surveyor.field_titles();
        has_field(attachment, &fields.script)
            || (has_field(attachment, &fields.risk) && has_field(attachment, &fields.host))
            || attachment.actions.iter().any(|button| is_console(&button.url))
            || is_console(&attachment.title_link)
    }
}

/// Returns whether an attachment has a field with one of the titles.
fn has_field(attachment: &Attachment<'_>, titles: &[String]) -> bool {
    attachment.fields.iter().any(|field| {
        let title = mrkdwn::label(&field.title);
        titles.iter().any(|wanted| same_label(&title, wanted))
    })
}

/// Reads attachments: the first [`MOST_INCIDENTS`] one by one, all further ones as one incident.
fn read_all<'m, 'a: 'm, A: Deref<Target = Attachment<'a>> + 'm>(
    mut matching: impl Iterator<Item = (u32, A)>,
    fields: &FieldTitles,
    read: impl Fn(u32, &Attachment<'a>) -> Incident,
) -> Vec<FoundIncident> {
    let own = (0..MOST_INCIDENTS).zip(&mut matching).map(|(ordinal, (attachment, it))| {
        FoundIncident { ordinal, attachment, incident: read(attachment, &it) }
    });
    let mut found: Vec<FoundIncident> = own.collect();
    found.extend(rest(matching, fields, read));
    found
}

/// Reads the incident that stands for all further ones: the first of the most severe, so that no
/// destination refuses it by a severity below the worst.
fn rest<'a, A: Deref<Target = Attachment<'a>>>(
    further: impl Iterator<Item = (u32, A)>,
    fields: &FieldTitles,
    read: impl Fn(u32, &Attachment<'a>) -> Incident,
) -> Option<FoundIncident> {
    let mut worst: Option<((bool, RiskLevel), u32, A)> = None;
    for (place, attachment) in further {
        let weight = Incident::weight(&attachment, fields);
        if worst.as_ref().is_none_or(|(known, ..)| *known < weight) {
            worst = Some((weight, place, attachment));
        }
    }
    let (_, attachment, it) = worst?;
    Some(FoundIncident { ordinal: MOST_INCIDENTS, attachment, incident: read(attachment, &it) })
}

impl Watch {
    fn has_channel(&self, channel: &str) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|watched| watched.as_str() == channel)
    }

    fn has_bot(&self, message: &Message<'_>) -> bool {
        let profile = &message.bot_profile;
        let ids = [&message.bot_id, &message.app_id, &profile.id, &profile.app_id];
        self.bots.is_empty() || self.bots.iter().any(|bot| ids.iter().any(|id| **id == *bot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        code_defender::{incident::IncidentProblem, settings::TitleError},
        slack::{envelope, message},
    };

    const TITLE: &str = "Code Defender has detected a new incident";

    macro_rules! payload {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/slack/", $name))
        };
    }

    fn judge_with(raw: &str, watch: &Watch) -> Verdict {
        Matcher::default().judge(&message::parse(raw).unwrap(), raw, watch)
    }

    fn found(raw: &str) -> Vec<FoundIncident> {
        let verdict = judge_with(raw, &Watch::default());
        let Verdict::Incidents(found) = verdict else { panic!("{verdict:?}\n{raw}") };
        found
    }

    fn reason(raw: &str) -> &'static str {
        reason_with(raw, &Watch::default())
    }

    fn reason_with(raw: &str, watch: &Watch) -> &'static str {
        match judge_with(raw, watch) {
            Verdict::Ignored(reason) | Verdict::Refused(reason) => reason.label(),
            Verdict::NearMiss(..) => "near_miss",
            verdict @ (Verdict::Incidents(_) | Verdict::NewLayout(..)) => {
                panic!("{verdict:?}\n{raw}")
            }
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
            let settings = MatchSettings {
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
                let verdict =
                    matcher.judge(&message::parse(&raw).unwrap(), &raw, &Watch::default());
                assert_eq!(matches!(verdict, Verdict::Incidents(_)), is_incident, "{title}");
            }
        }

        #[test]
        fn titles_of_fields_may_be_configured_as_slack_shows_them_or_writes_them() {
            let raw = post(&titled(r#","fields":[{"title":"r&amp;d level","value":"Low"}]"#));
            for title in ["R&D Level", "*R&amp;D Level:*", " R&D  LEVEL "] {
                let fields = FieldTitles { risk: vec![title.to_owned()], ..FieldTitles::default() };
                let matcher = Matcher::new(MatchSettings { fields, ..MatchSettings::default() });
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
        fn what_is_not_a_post_is_ignored_whatever_it_holds() {
            for subtype in ["message_deleted", "message_replied", "channel_topic", "tombstone"] {
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
                    Verdict::Refused(reason) => {
                        assert_eq!((reason, allowed), (Reason::BotNotAllowed, false));
                    }
                    verdict @ (Verdict::NewLayout(..)
                    | Verdict::NearMiss(..)
                    | Verdict::Ignored(_)) => panic!("{verdict:?}"),
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
                reason_with(&raw.replacen('{', r#"{"subtype":"bot_add","#, 1), &nowhere),
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

    /// Inputs on which the connector of the article lost alerts or stopped, one test each.
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
            assert!(incident.problems().contains(&IncidentProblem::SeverityMissing));
            assert!(incident.problems().contains(&IncidentProblem::ScriptMissing));
        }

        #[test]
        fn did_7_crash_on_an_incident_without_buttons_or_text() {
            let incident = found(&post(&titled(r#","fields":[]"#))).remove(0).incident;
            assert!(incident.problems().contains(&IncidentProblem::DeepLinkMissing));
            assert!(incident.problems().contains(&IncidentProblem::TextMissing));
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
