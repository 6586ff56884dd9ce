//! One incident, read from an attachment: owned, clean, and complete whatever was missing.

use std::borrow::Cow;

use url::Url;

use crate::{
    code_defender::{
        matcher::FieldTitles,
        risk_level::{Risk, RiskLevel},
    },
    slack::{
        message::{Attachment, Button, Field},
        mrkdwn,
    },
};

/// What a Code Defender message says. Absent texts are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The attachment's title, as Slack sent it.
    pub title: String,
    /// The first line of the details, trimmed.
    pub category: String,
    /// The attachment's text: entities decoded, links replaced by their URL, not trimmed.
    pub details: String,
    /// The severity.
    pub risk: Risk,
    /// The script.
    pub script: Script,
    /// Where the script runs.
    pub host: HostDomain,
    /// The incident in Code Defender's console: an http or https URL, or empty.
    pub deep_link: String,
    /// Somebody pressed a test button.
    pub is_test: bool,
    /// It did not have the shape that the vendor posts: it was read from wherever its words stood.
    pub layout: bool,
}

/// The script in two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// As Slack sent it.
    pub raw: String,
    /// Without code span, link markup and entities. It may have no scheme.
    pub url: String,
}

/// The page's domain in two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDomain {
    /// As Slack sent it.
    pub raw: String,
    /// The host of the link, else the text.
    pub name: String,
}

/// Something about an incident that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It was not in an attachment of the known shape.
    Layout,
    /// There is no risk level.
    SeverityMissing,
    /// The risk level is none of the known ones.
    SeverityUnknown,
    /// There is no script.
    ScriptMissing,
    /// The script is no URL with a host.
    ScriptUrl,
    /// There is no host domain.
    HostMissing,
    /// No button and no title leads anywhere.
    DeepLinkMissing,
    /// There is no text.
    TextMissing,
}

/// Every word of an alert's `parse_problems`: those of [`Problem`], and those about its message.
pub const PARSE_PROBLEMS: [&str; 10] = [
    LAYOUT,
    TOO_MANY,
    TS,
    Problem::SeverityMissing.label(),
    Problem::SeverityUnknown.label(),
    Problem::ScriptMissing.label(),
    Problem::ScriptUrl.label(),
    Problem::HostMissing.label(),
    Problem::DeepLinkMissing.label(),
    Problem::TextMissing.label(),
];

/// Title, link or fields were found elsewhere than in an attachment of the usual shape.
pub const LAYOUT: &str = "layout";

/// The alert stands for all incidents of a message beyond the most that are told apart.
pub const TOO_MANY: &str = "too_many";

/// The message has no readable timestamp.
pub const TS: &str = "ts";

impl Problem {
    /// The word in an alert's `parse_problems`.
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

/// More of one text than this is not searched: it would only be stored twice.
const SEARCHED_CHARS: usize = 500;

impl Incident {
    /// What a search looks through: category, script, host and title, one a line.
    pub fn search_text(&self) -> String {
        search_text([&self.category, &self.script.url, &self.host.name, &self.title])
    }

    /// Reads an attachment. Whatever is missing becomes a [`Problem`], never a refusal.
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
            layout: false,
            details,
        }
    }

    /// The order in which the incidents of a message count when one stands for several: what
    /// somebody tries out comes last, then the risk level decides.
    pub(super) fn weight(attachment: &Attachment<'_>, titles: &FieldTitles) -> (bool, RiskLevel) {
        let [risk] = values_of(attachment, [&titles.risk]);
        (!is_test(&mrkdwn::plain(&attachment.text)), Risk::read(risk).level)
    }

    /// What could not be read.
    pub fn problems(&self) -> Vec<Problem> {
        let severity_missing = self.risk.is_missing();
        let script_missing = self.script.url.is_empty();
        [
            (self.layout, Problem::Layout),
            (severity_missing, Problem::SeverityMissing),
            (!severity_missing && !self.risk.recognised, Problem::SeverityUnknown),
            (script_missing, Problem::ScriptMissing),
            (!script_missing && self.script.host().is_empty(), Problem::ScriptUrl),
            (self.host.name.is_empty(), Problem::HostMissing),
            (self.deep_link.is_empty(), Problem::DeepLinkMissing),
            (self.details.trim().is_empty(), Problem::TextMissing),
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

    /// The URL's host, or empty.
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

/// Whether a posted title is the wanted one, but for case, markup, blanks and a closing colon.
pub(super) fn same_title(posted: &str, wanted: &str) -> bool {
    is_label(&mrkdwn::label(posted), &mrkdwn::label(wanted))
}

/// The same of two titles without their markup.
fn is_label(label: &str, wanted: &str) -> bool {
    label.eq_ignore_ascii_case(wanted) || letters(label).eq(letters(wanted))
}

/// The letters in lower case, with one space for every gap.
pub(super) fn letters(text: &str) -> impl Iterator<Item = char> {
    let words = text.split(char::is_whitespace).filter(|word| !word.is_empty());
    let spaced = words.flat_map(|word| word.chars().chain([' ']));
    spaced.filter(|char| *char == ' ' || !mrkdwn::is_blank(*char)).flat_map(char::to_lowercase)
}

/// Whether an attachment has a field with one of the titles.
pub(super) fn has_field(attachment: &Attachment<'_>, titles: &[String]) -> bool {
    attachment.fields.iter().any(|field| {
        let title = mrkdwn::label(&field.title);
        titles.iter().any(|wanted| is_label(&title, wanted))
    })
}

/// Whether a URL leads to Code Defender's console, by the old or the new name of the vendor.
pub(super) fn is_console(url: &str) -> bool {
    let host = web_link(url).and_then(host_of).unwrap_or_default();
    ["perimeterx.com", "humansecurity.com"].iter().any(|domain| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// For each list of titles, the value of the first title whose field has something in it. The order
/// of the list decides and not the message's: a field that the vendor adds tomorrow must not take
/// the place of one that is configured before it. A value that is there and cannot be read is not
/// passed over, since the next field may say something milder about something else.
fn values_of<'a, const LISTS: usize>(
    attachment: &'a Attachment<'_>,
    lists: [&[String]; LISTS],
) -> [&'a str; LISTS] {
    let mut best: [Option<((bool, usize), &'a str)>; LISTS] = [None; LISTS];
    // One pass that takes each title out of its markup once: a body has room for a lot of fields.
    for Field { title, value } in &attachment.fields {
        let title = mrkdwn::label(title);
        for (best, titles) in best.iter_mut().zip(lists) {
            let Some(rank) = titles.iter().position(|wanted| is_label(&title, wanted)) else {
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

/// `View in Console`, else a button into the console, else the first button that leads anywhere,
/// else the title's link.
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

/// The text if it is an http or https URL: an analyst will click on it, so nothing else may pass.
fn web_link(text: &str) -> Option<&str> {
    let text = text.trim();
    let web = ["https://", "http://"].iter().any(|scheme| starts_with_ignoring_case(text, scheme));
    web.then_some(text)
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// A longer text is not a URL that anything loads a script from, and parsing takes several times
/// its length in memory.
const URL_MAX_BYTES: usize = 64 * 1024;

/// The host of a URL; without a scheme it is taken for https.
fn host_of(url: &str) -> Option<String> {
    if url.len() > URL_MAX_BYTES {
        return None;
    }
    if let Some(host) = plain_host(url) {
        return Some(host.to_owned());
    }
    let absolute = if url.contains("://") {
        Cow::Borrowed(url)
    } else {
        Cow::Owned(format!("https://{}", url.trim_start_matches('/')))
    };
    Some(Url::parse(&absolute).ok()?.host_str()?.to_owned())
}

/// The host of a URL that needs no parser to be read: most of them. No number may stand at its end,
/// where it would be an address, and no encoded name in it.
fn plain_host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_plain =
        |label: &str| !label.is_empty() && label.bytes().all(plain) && !label.starts_with("xn--");
    let last = host.rsplit('.').next()?;
    let is_name = last.starts_with(|first: char| first.is_ascii_lowercase());
    (is_name && host.split('.').all(is_plain)).then_some(host)
}

/// What a search looks through, of category, script, host and title: a bounded part of each.
///
/// ```
/// use slack_soar_relay::code_defender::incident::search_text;
/// let text = search_text(["PII Sniffing", "cdn.example/pay.js", "shop.example", "Incident"]);
/// assert_eq!(text, "PII Sniffing\ncdn.example/pay.js\nshop.example\nIncident");
/// ```
pub fn search_text(parts: [&str; 4]) -> String {
    let searched = parts.map(|part| {
        // So many bytes have at most so many characters: no need to count them.
        let is_short = part.len() <= SEARCHED_CHARS;
        let end = if is_short { None } else { part.char_indices().nth(SEARCHED_CHARS) };
        end.and_then(|(end, _)| part.get(..end)).unwrap_or(part)
    });
    searched.join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn a_host_that_is_read_without_the_parser_is_the_parsers() {
        let urls = [
            "https://shop.example",
            "http://cdn.shop-2.example/a.js?x#y",
            "https://a.b?c",
            "http://x",
        ];
        for url in urls {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(plain_host(url), parsed.host_str(), "{url}");
        }
        let others = [
            "https://Shop.example",
            "http://127.1/",
            "http://a.0x7f/",
            "http://1/",
            "https://a..b/",
            "https://a.example:8443/",
            "https://user@a.example/",
            "https://xn--a.example/",
            "https://b\u{fc}cher.example/",
            "https:///a.js",
            "https://",
            "ftp://a.example/",
            "https://a.example./",
            "//a.example/",
            "https://a_b.example/",
            "https://a%2e.example/",
        ];
        for url in others {
            assert_eq!(plain_host(url), None, "{url}");
        }
    }

    proptest! {
        #[test]
        fn the_parser_agrees_with_every_plain_host(url in "https?://[a-z0-9.x-]{1,20}[/?#a-z:@]*") {
            if let Some(host) = plain_host(&url) {
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(parsed.host_str(), Some(host));
            }
        }
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
    fn a_script_that_is_no_url_is_a_problem_and_kept() {
        let incident = read(&Attachment {
            fields: vec![field("Script", "inline script"), field("Risk Level", "Severe")],
            ..Attachment::default()
        });
        assert_eq!(incident.script.url, "inline script");
        assert!(incident.problems().starts_with(&[Problem::SeverityUnknown, Problem::ScriptUrl]));
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
            assert!(incident.problems().contains(&Problem::DeepLinkMissing));
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
