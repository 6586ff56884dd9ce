//! One incident, read from an attachment into owned text. A field that is missing or unreadable is
//! named in [`Incident::problems`] and never prevents the reading.

use super::{
    labels::{same_label, same_title},
    links::{host_of, is_console, starts_with_ignoring_case, web_link},
    risk_level::{Risk, RiskLevel},
    settings::FieldTitles,
};
use crate::slack::{
    message::{Attachment, Button, Field},
    mrkdwn,
};

/// An incident that Code Defender reports. Absent texts are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Title of the attachment, as Slack sent it.
    pub title: String,
    /// First line of the details, trimmed.
    pub category: String,
    /// Text of the attachment: entities decoded, links replaced by their URLs, not trimmed.
    pub details: String,
    /// Severity of the incident.
    pub risk: Risk,
    /// Script that the incident is about.
    pub script: Script,
    /// Domain of the page on which the script runs.
    pub host: HostDomain,
    /// Link to the incident in Code Defender's console: an http or https URL, or empty.
    pub deep_link: String,
    /// The incident was sent with the vendor's test button.
    pub is_test: bool,
    /// The incident was found in a new layout, not in an attachment of the known layout.
    pub is_new_layout: bool,
}

/// A script, as sent and as a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Value of the field, as Slack sent it.
    pub raw: String,
    /// Value without code span, link markup and entities. The scheme may be missing.
    pub url: String,
}

/// A page's domain, as sent and as a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDomain {
    /// Value of the field, as Slack sent it.
    pub raw: String,
    /// Host of the link, or the text if there is no link.
    pub name: String,
}

/// A part of an incident that is missing or could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentProblem {
    /// The incident was not in an attachment of the known layout.
    Layout,
    /// The risk level is missing.
    SeverityMissing,
    /// The risk level is not one of the known levels.
    SeverityUnknown,
    /// The script is missing.
    ScriptMissing,
    /// The script is not a URL with a host.
    ScriptUrl,
    /// The host domain is missing.
    HostMissing,
    /// Neither a button nor the title has a link.
    DeepLinkMissing,
    /// The text is missing.
    TextMissing,
}

/// Every word that may be in an alert's `parse_problems`: those of [`IncidentProblem`], and those
/// about the message.
pub const PARSE_PROBLEMS: [&str; 10] = [
    LAYOUT,
    TOO_MANY,
    TS,
    IncidentProblem::SeverityMissing.label(),
    IncidentProblem::SeverityUnknown.label(),
    IncidentProblem::ScriptMissing.label(),
    IncidentProblem::ScriptUrl.label(),
    IncidentProblem::HostMissing.label(),
    IncidentProblem::DeepLinkMissing.label(),
    IncidentProblem::TextMissing.label(),
];

/// Parse problem: title, link or fields were not in an attachment of the known layout.
pub const LAYOUT: &str = "layout";

/// Parse problem: the alert stands for all incidents of a message beyond
/// [`MOST_INCIDENTS`](super::verdict::MOST_INCIDENTS).
pub const TOO_MANY: &str = "too_many";

/// Parse problem: the message does not have a readable timestamp.
pub const TS: &str = "ts";

impl IncidentProblem {
    /// Returns the word that stands for the problem in an alert's `parse_problems`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Layout => LAYOUT,
            Self::SeverityMissing => "severity_missing",
            Self::SeverityUnknown => "severity_unknown",
            Self::ScriptMissing => "script_missing",
            Self::ScriptUrl => "script_url",
            Self::HostMissing => "host_missing",
            Self::DeepLinkMissing => "deep_link_missing",
            Self::TextMissing => "text_missing",
        }
    }
}

/// Characters of each text that a search looks through. A longer part would only be stored twice.
const SEARCHED_CHARS: usize = 500;

impl Incident {
    /// Returns the text that a search looks through: category, script, host and title, one a line.
    pub fn search_text(&self) -> String {
        search_text([&self.category, &self.script.url, &self.host.name, &self.title])
    }

    /// Reads an attachment. A missing or unreadable field becomes an [`IncidentProblem`].
    pub(super) fn read(attachment: &Attachment<'_>, titles: &FieldTitles) -> Self {
        let FieldTitles { script, risk, host } = titles;
        let [script, risk, host] = values_of(attachment, [script, risk, host]);
        let details = mrkdwn::plain(&attachment.text).into_owned();
        Self {
            title: attachment.title.to_string(),
            category: details.lines().next().unwrap_or_default().trim().to_owned(),
            risk: Risk::read(risk),
            script: Script::read(script),
            host: HostDomain::read(host),
            deep_link: deep_link(attachment).unwrap_or_default().to_owned(),
            is_test: is_test(&details),
            is_new_layout: false,
            details,
        }
    }

    /// Returns the rank of an incident when one has to stand for several: test incidents come last,
    /// then the risk level decides.
    pub(super) fn weight(attachment: &Attachment<'_>, titles: &FieldTitles) -> (bool, RiskLevel) {
        let [risk] = values_of(attachment, [&titles.risk]);
        (!is_test(&mrkdwn::plain(&attachment.text)), Risk::read(risk).level)
    }

    /// Returns what is missing or could not be read.
    pub fn problems(&self) -> Vec<IncidentProblem> {
        let severity_missing = self.risk.is_missing();
        let script_missing = self.script.url.is_empty();
        [
            (self.is_new_layout, IncidentProblem::Layout),
            (severity_missing, IncidentProblem::SeverityMissing),
            (!severity_missing && !self.risk.recognised, IncidentProblem::SeverityUnknown),
            (script_missing, IncidentProblem::ScriptMissing),
            (!script_missing && self.script.host().is_empty(), IncidentProblem::ScriptUrl),
            (self.host.name.is_empty(), IncidentProblem::HostMissing),
            (self.deep_link.is_empty(), IncidentProblem::DeepLinkMissing),
            (self.details.trim().is_empty(), IncidentProblem::TextMissing),
        ]
        .into_iter()
        .filter_map(|(is_there, problem)| is_there.then_some(problem))
        .collect()
    }
}

impl Script {
    fn read(raw: &str) -> Self {
        Self { raw: raw.to_owned(), url: mrkdwn::value(raw).into_owned() }
    }

    /// Returns the host of the URL, or an empty text.
    pub fn host(&self) -> String {
        host_of(&self.url).unwrap_or_default()
    }
}

impl HostDomain {
    fn read(raw: &str) -> Self {
        let linked = mrkdwn::first_link(raw).and_then(|url| host_of(&url));
        let name = linked.unwrap_or_else(|| mrkdwn::value(raw).into_owned());
        Self { raw: raw.to_owned(), name }
    }
}

/// Returns, for each list of titles, the value of the first title in the list whose field is not
/// empty; an empty text if there is none.
fn values_of<'a, const LISTS: usize>(
    attachment: &'a Attachment<'_>,
    lists: [&[String]; LISTS],
) -> [&'a str; LISTS] {
    let mut best: [Option<((bool, usize), &'a str)>; LISTS] = [None; LISTS];
    // The order of the list decides and not that of the message: a field that the vendor adds
    // tomorrow must not replace one that is configured before it. A value that is present and
    // cannot be read still counts, since the next field may say something milder about something
    // else. One pass removes the markup of each title once: a body has room for many fields.
    for Field { title, value } in &attachment.fields {
        let title = mrkdwn::label(title);
        for (best, titles) in best.iter_mut().zip(lists) {
            let Some(rank) = titles.iter().position(|wanted| same_label(&title, wanted)) else {
                continue;
            };
            let order = (mrkdwn::value(value).is_empty(), rank);
            if best.is_none_or(|(known, _)| order < known) {
                *best = Some((order, value));
            }
        }
    }
    best.map(|found| found.map_or("", |(_, value)| value))
}

/// Returns the link of the button `View in Console`; else of a button into the console; else of the
/// first button with a link; else of the title.
fn deep_link<'a>(attachment: &'a Attachment<'_>) -> Option<&'a str> {
    let button = |wanted: &dyn Fn(&Button<'_>) -> bool| {
        let mut buttons = attachment.actions.iter().filter(|button| wanted(button));
        buttons.find_map(|button| web_link(&button.url))
    };
    button(&|button| same_title(&button.text, "View in Console"))
        .or_else(|| button(&|button| is_console(&button.url)))
        .or_else(|| button(&|_any| true))
        .or_else(|| web_link(&attachment.title_link))
}

fn is_test(details: &str) -> bool {
    starts_with_ignoring_case(details, "Test from ")
}

/// Joins the searched parts of category, script, host and title, one a line.
///
/// ```
/// use slack_soar_relay::code_defender::incident::search_text;
/// let text = search_text(["PII Sniffing", "cdn.example/pay.js", "shop.example", "Incident"]);
/// assert_eq!(text, "PII Sniffing\ncdn.example/pay.js\nshop.example\nIncident");
/// ```
pub fn search_text(parts: [&str; 4]) -> String {
    let searched = parts.map(|part| {
        // A text has at most as many characters as bytes, so a short one need not be counted.
        let is_short = part.len() <= SEARCHED_CHARS;
        let end = if is_short { None } else { part.char_indices().nth(SEARCHED_CHARS) };
        end.and_then(|(end, _)| part.get(..end)).unwrap_or(part)
    });
    searched.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(title: &'a str, value: &'a str) -> Field<'a> {
        Field { title: title.into(), value: value.into() }
    }

    fn button<'a>(text: &'a str, url: &'a str) -> Button<'a> {
        Button { text: text.into(), url: url.into() }
    }

    fn read(attachment: &Attachment<'_>) -> Incident {
        Incident::read(attachment, &FieldTitles::default())
    }

    fn script(value: &str) -> Script {
        Script::read(value)
    }

    #[test]
    fn an_empty_attachment_is_read_with_every_problem_named() {
        let incident = read(&Attachment::default());
        assert_eq!(incident.risk.level.as_str(), "high");
        let labels: Vec<_> = incident.problems().iter().map(|problem| problem.label()).collect();
        assert_eq!(
            labels,
            [
                "severity_missing",
                "script_missing",
                "host_missing",
                "deep_link_missing",
                "text_missing"
            ]
        );
    }

    #[test]
    fn the_lists_order_decides_which_field_is_read_and_not_the_messages() {
        let incident = read(&Attachment {
            fields: vec![
                field(" severity ", "CVSS 9.8"),
                field("Risk Level", "Low"),
                field("SCRIPT URL", "a.example/1.js"),
                field("Script", "b.example/2.js"),
                field("Domain", "www.shop.example"),
                field("Host Domain", "shop.example"),
            ],
            ..Attachment::default()
        });
        assert_eq!((incident.risk.level, incident.risk.recognised), (RiskLevel::Low, true));
        assert_eq!(incident.script.url, "b.example/2.js");
        assert_eq!(incident.host.name, "shop.example");
    }

    #[test]
    fn a_listed_field_with_nothing_in_it_gives_way_to_the_next_and_an_unknown_level_does_not() {
        for (risk_level, severity, raw, level) in [
            ("", "Low", "Low", RiskLevel::Low),
            (" \u{200b}\u{a0}", "Low", "Low", RiskLevel::Low),
            ("``", "Low", "Low", RiskLevel::Low),
            ("CVSS 9.8", "Low", "CVSS 9.8", RiskLevel::High),
            ("Critical", "Low", "Critical", RiskLevel::Critical),
            ("``", " ", "``", RiskLevel::High),
        ] {
            let incident = read(&Attachment {
                fields: vec![field("Severity", severity), field("Risk Level", risk_level)],
                ..Attachment::default()
            });
            assert_eq!((&*incident.risk.raw, incident.risk.level), (raw, level), "{risk_level:?}");
        }
        let twice = read(&Attachment {
            fields: vec![
                field("Script", ""),
                field("Script", "first.example/a.js"),
                field("Script", "second.example/b.js"),
            ],
            ..Attachment::default()
        });
        assert_eq!(twice.script.url, "first.example/a.js");
    }

    #[test]
    fn titles_of_fields_are_read_through_their_markup() {
        for title in [
            "Risk Level:",
            "*Risk Level*",
            "*Risk Level:*",
            "*Risk Level*:",
            " _*RISK LEVEL*_ ",
            "`Risk Level`",
            "~Risk Level~ :",
            "Risk\u{a0}Level",
            "\u{feff}Risk  Level\u{200b}",
            "<https://docs.example/risk|Risk Level>",
            "*<https://docs.example/risk|Risk Level>:*",
            "Risk Level\u{ff1a}",
        ] {
            let incident =
                read(&Attachment { fields: vec![field(title, "Low")], ..Attachment::default() });
            assert_eq!(incident.risk.level, RiskLevel::Low, "{title}");
        }
        for title in ["Risk", "Risk Level 2", "RiskLevel", "*", ":", "", "not a Risk Level"] {
            let incident =
                read(&Attachment { fields: vec![field(title, "Low")], ..Attachment::default() });
            assert_eq!(incident.risk.raw, "", "{title}");
        }
    }

    #[test]
    fn values_are_read_through_their_markup_and_kept_as_posted() {
        for (posted, url) in [
            ("*<https://cdn.example/A.js?b=1&amp;c>*", "https://cdn.example/A.js?b=1&c"),
            ("*`cdn.example/a.js`*", "cdn.example/a.js"),
            ("_<https://cdn.example/a.js|a.js>_", "https://cdn.example/a.js"),
            ("~cdn.example/_a_.js~", "cdn.example/_a_.js"),
            ("\u{a0}`cdn.example/a.js`\u{200b}", "cdn.example/a.js"),
            ("**cdn.example/a.js**", "cdn.example/a.js"),
            ("cdn.example/__init__", "cdn.example/__init__"),
            ("`_private_/a_`", "_private_/a_"),
            ("*", "*"),
        ] {
            let script = script(posted);
            assert_eq!((&*script.url, &*script.raw), (url, posted));
        }
        assert_eq!(HostDomain::read("*shop.example*").name, "shop.example");
        assert_eq!(HostDomain::read("*<http://shop.example|x>*").name, "shop.example");
    }

    #[test]
    fn the_scripts_host_is_read_with_https_assumed() {
        for (raw, url, host) in [
            (
                "`www.somedomain.com/scripts/script.js`",
                "www.somedomain.com/scripts/script.js",
                "www.somedomain.com",
            ),
            (
                "`<https://CDN.example.com:8443/A.js?B=c&amp;d|x>`",
                "https://CDN.example.com:8443/A.js?B=c&d",
                "cdn.example.com",
            ),
            ("//cdn.example.com/a.js", "//cdn.example.com/a.js", "cdn.example.com"),
            ("cdn.example.com:8080/a.js", "cdn.example.com:8080/a.js", "cdn.example.com"),
            ("https://müller.example/a.js", "https://müller.example/a.js", "xn--mller-kva.example"),
            ("wss://[::1]:9/a", "wss://[::1]:9/a", "[::1]"),
            ("inline script", "inline script", ""),
            ("data:text/javascript,alert(1)", "data:text/javascript,alert(1)", ""),
            ("https://", "https://", ""),
            ("``", "", ""),
        ] {
            let script = script(raw);
            assert_eq!((&*script.url, &*script.host()), (url, host), "{raw}");
            assert_eq!(script.raw, raw);
        }
    }

    #[test]
    fn a_script_that_is_not_a_url_is_a_problem_and_kept() {
        let incident = read(&Attachment {
            fields: vec![field("Script", "inline script"), field("Risk Level", "Severe")],
            ..Attachment::default()
        });
        assert_eq!(incident.script.url, "inline script");
        assert!(
            incident
                .problems()
                .starts_with(&[IncidentProblem::SeverityUnknown, IncidentProblem::ScriptUrl])
        );
    }

    #[test]
    fn the_host_domain_is_the_links_host_else_the_text() {
        for (raw, name) in [
            ("<http://example.com|example.com>", "example.com"),
            ("`<https://Shop.Example.com/a|label>`", "shop.example.com"),
            ("<http://example.com>", "example.com"),
            ("example.com", "example.com"),
            (" `R&amp;D.example` ", "R&D.example"),
            ("", ""),
        ] {
            assert_eq!(HostDomain::read(raw).name, name, "{raw}");
        }
    }

    #[test]
    fn the_deep_link_is_chosen_in_the_documented_order() {
        let console = "https://console.perimeterx.com/x?from=slack";
        let human = "https://console.humansecurity.com/x";
        for (buttons, link) in [
            (
                vec![button("Docs", human), button(" view in console ", "http://a.example")],
                "http://a.example",
            ),
            (vec![button("Docs", "https://docs.example"), button("Open", console)], console),
            (vec![button("Docs", "https://docs.example"), button("Open", human)], human),
            (
                vec![button("Ack", ""), button("Docs", "https://docs.example")],
                "https://docs.example",
            ),
            (
                vec![button("View in Console", ""), button("x", "https://b.example")],
                "https://b.example",
            ),
            (vec![button("Ack", "")], "https://title.example"),
        ] {
            let attachment = Attachment {
                actions: buttons,
                title_link: "https://title.example".into(),
                ..Attachment::default()
            };
            assert_eq!(read(&attachment).deep_link, link);
        }
    }

    #[test]
    fn a_link_that_is_not_http_never_reaches_an_analyst() {
        for url in [
            "javascript:alert(1)",
            "data:text/html,x",
            "//console.perimeterx.com",
            "file:///etc",
            "h",
        ] {
            let attachment = Attachment {
                actions: vec![button("View in Console", url)],
                title_link: url.into(),
                ..Attachment::default()
            };
            let incident = read(&attachment);
            assert_eq!(incident.deep_link, "", "{url}");
            assert!(incident.problems().contains(&IncidentProblem::DeepLinkMissing));
        }
        assert_eq!(web_link(" HTTPS://x.example "), Some("HTTPS://x.example"));
    }

    #[test]
    fn only_the_vendors_domains_are_the_console() {
        for url in [
            "https://console.perimeterx.com/x",
            "http://A.HumanSecurity.com",
            "https://perimeterx.com",
        ] {
            assert!(is_console(url), "{url}");
        }
        for url in [
            "https://notperimeterx.com",
            "https://perimeterx.com.evil.example",
            "https://evil.example/perimeterx.com",
            "https://console.perimeterx.com@evil.example",
            "javascript://console.perimeterx.com/%0aalert(1)",
            "",
        ] {
            assert!(!is_console(url), "{url}");
        }
    }

    #[test]
    fn the_category_is_the_first_line_trimmed_and_the_details_are_whole() {
        for (text, category, details) in [
            (
                "Test from PerimeterX \n more details",
                "Test from PerimeterX",
                "Test from PerimeterX \n more details",
            ),
            ("PII &amp; PCI\r\nx &amp;amp; y", "PII & PCI", "PII & PCI\r\nx &amp; y"),
            ("\n second", "", "\n second"),
            (" see <https://a.example|here> ", "see https://a.example", " see https://a.example "),
        ] {
            let incident = read(&Attachment { text: text.into(), ..Attachment::default() });
            assert_eq!((&*incident.category, &*incident.details), (category, details));
        }
    }

    #[test]
    fn a_test_is_known_by_its_first_words() {
        for (text, is_test) in [
            ("Test from PerimeterX", true),
            ("TEST FROM HUMAN", true),
            ("Test from", false),
            ("Latest from PerimeterX", false),
            ("", false),
        ] {
            let attachment = Attachment { text: text.into(), ..Attachment::default() };
            assert_eq!(read(&attachment).is_test, is_test, "{text}");
        }
    }

    #[test]
    fn the_search_text_is_bounded() {
        let attachment = Attachment {
            title: "é".repeat(1_000_000).into(),
            text: "PII Sniffing\nmore".into(),
            fields: vec![field("Script", "`a.example/x.js`"), field("Host Domain", "shop.example")],
            ..Attachment::default()
        };
        let text = read(&attachment).search_text();
        assert!(text.starts_with("PII Sniffing\na.example/x.js\nshop.example\né"));
        assert!(text.len() < 2_000);
    }
}
