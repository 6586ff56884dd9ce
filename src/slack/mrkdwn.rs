//! Removal of Slack's text markup: `` `code` ``, `<url|label>`, `<@U1>`, `&amp;`.
//!
//! Link markup is found before entities are decoded, since `&lt;` is a bracket that somebody typed
//! and `<` is markup. Entities are decoded once, so that `&amp;lt;` becomes the text `&lt;`
//! (`docs.slack.dev/messaging/formatting-message-text`).

use std::borrow::Cow;

/// Returns running text without markup: links become their URL, mentions something readable, and
/// entities are decoded. Code spans and white space stay.
///
/// ```
/// use slack_soar_relay::slack::mrkdwn::plain;
/// assert_eq!(plain("a &lt; b <https://x.example/?a&amp;b|c>"), "a < b https://x.example/?a&b");
/// assert_eq!(plain("for <@U1|kim> in <#C1|soc>"), "for @kim in #soc");
/// ```
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'<' | b'&')) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(render(text, push_markup, |words| unescape(words)))
}

/// Returns a value such as a URL without markup: as [`plain`], and also without the marks of code
/// spans, emphasis around the whole, and surrounding blanks. The text inside a link stays
/// unchanged.
///
/// ```
/// use slack_soar_relay::slack::mrkdwn::value;
/// assert_eq!(value("`www.example.com/A.js?x=1&amp;y=2`"), "www.example.com/A.js?x=1&y=2");
/// assert_eq!(value("*<https://example.com/a.js|a.js>*"), "https://example.com/a.js");
/// ```
pub fn value(text: &str) -> Cow<'_, str> {
    let text = without_emphasis(text);
    if !has_markup(text) {
        return Cow::Borrowed(text);
    }
    let value = render(text, push_markup, |words| Cow::Owned(unescape(words).replace('`', "")));
    Cow::Owned(trim(&value).to_owned())
}

/// Returns a word or two that name something, such as a field's title or a level: the text that
/// Slack shows, without surrounding marks and without a colon at the end. A link becomes its label.
///
/// ```
/// use slack_soar_relay::slack::mrkdwn::label;
/// assert_eq!(label(" *Risk Level:* "), "Risk Level");
/// assert_eq!(label("<https://docs.example.com/risk|`High`>"), "High");
/// ```
pub fn label(text: &str) -> Cow<'_, str> {
    let is_around = |char: char| is_blank(char) || matches!(char, '*' | '_' | '~' | '`');
    let is_behind = |char: char| is_around(char) || matches!(char, ':' | '\u{ff1a}');
    if !has_markup(text) {
        return Cow::Borrowed(text.trim_start_matches(is_around).trim_end_matches(is_behind));
    }
    let shown = render(text, push_shown, |words| unescape(words));
    Cow::Owned(shown.trim_start_matches(is_around).trim_end_matches(is_behind).to_owned())
}

/// Returns the text without surrounding blanks: white space, and characters without a width.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_blank)
}

/// Returns whether the character is white space, or has no width: soft hyphen, zero-width space and
/// joiners, word joiner, byte order mark.
pub fn is_blank(char: char) -> bool {
    char.is_whitespace()
        || matches!(char, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Depth of nested emphasis: as many as Slack has marks, each perhaps doubled as in Markdown.
const EMPHASIS_MAX: usize = 8;

/// Returns the text without the marks of bold, italic and strike-through that enclose all of it.
fn without_emphasis(text: &str) -> &str {
    let mut text = trim(text);
    for _ in 0..EMPHASIS_MAX {
        let enclosed = ['*', '_', '~'].iter().find_map(|mark| {
            text.strip_prefix(*mark)?
                .strip_suffix(*mark)
                .map(trim)
                .filter(|inner| !inner.is_empty())
        });
        let Some(inner) = enclosed else {
            break;
        };
        text = inner;
    }
    text
}

fn has_markup(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'<' | b'&' | b'`'))
}

/// Returns the URL of the first link of the text, if there is one.
///
/// ```
/// use slack_soar_relay::slack::mrkdwn::first_link;
/// assert_eq!(first_link("on <http://example.com|example.com>").unwrap(), "http://example.com");
/// assert!(first_link("example.com").is_none());
/// ```
pub fn first_link(text: &str) -> Option<Cow<'_, str>> {
    tokens(text).find_map(|token| match token {
        Token::Markup { target, .. } if !target.starts_with(['@', '#', '!']) => {
            Some(unescape(target))
        }
        Token::Markup { .. } | Token::Words(_) => None,
    })
}

/// Decodes `&amp;`, `&lt;` and `&gt;`, the only entities that Slack uses, once.
///
/// ```
/// use slack_soar_relay::slack::mrkdwn::unescape;
/// assert_eq!(unescape("R&amp;D &amp;lt; &quot;"), "R&D &lt; &quot;");
/// ```
pub fn unescape(text: &str) -> Cow<'_, str> {
    let Some((mut before, mut rest)) = text.split_once('&') else {
        return Cow::Borrowed(text);
    };
    let mut decoded = String::with_capacity(text.len());
    loop {
        decoded.push_str(before);
        let entity = [("amp;", '&'), ("lt;", '<'), ("gt;", '>')]
            .into_iter()
            .find_map(|(name, char)| Some((char, rest.strip_prefix(name)?)));
        let (char, after) = entity.unwrap_or(('&', rest));
        decoded.push(char);
        let Some(next) = after.split_once('&') else {
            decoded.push_str(after);
            return Cow::Owned(decoded);
        };
        (before, rest) = next;
    }
}

fn render<'t>(
    text: &'t str,
    markup: impl Fn(&mut String, &str, &str),
    words: impl Fn(&'t str) -> Cow<'t, str>,
) -> String {
    let mut rendered = String::with_capacity(text.len());
    for token in tokens(text) {
        match token {
            Token::Words(text) => rendered.push_str(&words(text)),
            Token::Markup { target, label } => markup(&mut rendered, target, label),
        }
    }
    rendered
}

/// Appends markup as Slack shows it: a link becomes its label, if it has one.
fn push_shown(to: &mut String, target: &str, label: &str) {
    let is_link = !target.starts_with(['@', '#', '!']);
    if is_link && !label.is_empty() {
        to.push_str(&unescape(label));
    } else {
        push_markup(to, target, label);
    }
}

/// Appends markup as plain text. A link becomes its URL; `<@U1|kim>` becomes `@kim`, `<#C1>` `#C1`,
/// `<!here>` `@here`, and a date or a group the fallback text that Slack provides.
fn push_markup(to: &mut String, target: &str, label: &str) {
    let shown = if label.is_empty() { target.get(1..).unwrap_or_default() } else { label };
    match target.as_bytes().first() {
        Some(sigil @ (b'@' | b'#')) => {
            let sigil = char::from(*sigil);
            to.push(sigil);
            to.push_str(&unescape(shown.trim_start_matches(sigil)));
        }
        Some(b'!') if label.is_empty() => {
            to.push('@');
            to.push_str(&unescape(shown.trim_start_matches("subteam^")));
        }
        Some(b'!') => to.push_str(&unescape(label)),
        _ => to.push_str(&unescape(target)),
    }
}

enum Token<'a> {
    Words(&'a str),
    /// Markup of the form `<target|label>`; the label may be missing.
    Markup {
        target: &'a str,
        label: &'a str,
    },
}

/// Splits a text at its markup. A `<` that does not open markup belongs to the words.
fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if let Some((token, after)) = markup(rest) {
            rest = after;
            return Some(token);
        }
        let skipped = usize::from(rest.starts_with('<'));
        let next = rest.bytes().skip(skipped).position(|byte| byte == b'<');
        let (words, after) = rest.split_at_checked(next.map_or(rest.len(), |at| at + skipped))?;
        rest = after;
        (!words.is_empty()).then_some(Token::Words(words))
    })
}

/// Returns the markup with which the text begins, and the rest.
fn markup(text: &str) -> Option<(Token<'_>, &str)> {
    let inside = text.strip_prefix('<')?;
    let end = inside.find(['<', '>', '\n'])?;
    let (content, after) = inside.split_at_checked(end)?;
    let after = after.strip_prefix('>')?;
    let (target, label) = content.split_once('|').unwrap_or((content, ""));
    // Only the format of a date has spaces.
    let is_date = target.starts_with("!date^");
    let is_target = is_date || !(target.is_empty() || target.contains(char::is_whitespace));
    is_target.then_some((Token::Markup { target, label }, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escape(text: &str) -> String {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    }

    #[test]
    fn a_value_is_found_under_every_wrapping() {
        for wrapped in [
            "www.x.example/A.js?q=1&z=%20",
            "`www.x.example/A.js?q=1&amp;z=%20`",
            "<www.x.example/A.js?q=1&amp;z=%20>",
            "`<www.x.example/A.js?q=1&amp;z=%20>`",
            "`<www.x.example/A.js?q=1&amp;z=%20|label>`",
            "<www.x.example/A.js?q=1&amp;z=%20|the label &amp; more>",
            " ```www.x.example/A.js?q=1&amp;z=%20```\n",
            "`www.x.example/A.js?q=1&amp;z=%20",
            "*www.x.example/A.js?q=1&amp;z=%20*",
            "_*~`www.x.example/A.js?q=1&amp;z=%20`~*_",
            "\u{feff}*<www.x.example/A.js?q=1&amp;z=%20|*label*>*\u{a0}",
        ] {
            assert_eq!(value(wrapped), "www.x.example/A.js?q=1&z=%20", "{wrapped}");
        }
    }

    #[test]
    fn entities_are_decoded_once_and_never_become_markup() {
        for (text, shown) in [
            ("&amp;lt;script&amp;gt;", "&lt;script&gt;"),
            ("&lt;https://x.example|y&gt;", "<https://x.example|y>"),
            ("<https://x.example/?a=&lt;b&gt;|c>", "https://x.example/?a=<b>"),
            ("&quot;&#39;&nbsp;& &amp", "&quot;&#39;&nbsp;& &amp"),
            ("&&amp;&", "&&&"),
        ] {
            assert_eq!(plain(text), shown, "{text}");
        }
    }

    #[test]
    fn mentions_and_dates_stay_readable() {
        for (text, shown) in [
            ("<@U1>", "@U1"),
            ("<@U1|kim>", "@kim"),
            ("<@U1|@kim>", "@kim"),
            ("<#C1|soc>", "#soc"),
            ("<#C1|>", "#C1"),
            ("<!here>", "@here"),
            ("<!channel|@channel>", "@channel"),
            ("<!subteam^S1|@soc>", "@soc"),
            ("<!subteam^S1>", "@S1"),
            ("<!date^1392734382^{date} at {time}|18 Feb &amp; later>", "18 Feb & later"),
            ("<mailto:a@b.example|a@b.example>", "mailto:a@b.example"),
        ] {
            assert_eq!(plain(text), shown, "{text}");
        }
    }

    #[test]
    fn brackets_that_are_no_markup_stay() {
        for text in
            ["a < b > c", "<>", "<|x>", "1 <\n2>", "<", ">", "<<", "x <y", "a <b", "<a b|c>"]
        {
            assert_eq!(plain(text), text, "{text}");
        }
        assert_eq!(plain("< <https://x.example>>"), "< https://x.example>");
        assert_eq!(plain("<<https://x.example>"), "<https://x.example");
    }

    #[test]
    fn running_text_keeps_its_white_space_and_code() {
        assert_eq!(plain(" `a` \n <https://x.example|b> "), " `a` \n https://x.example ");
        assert!(matches!(plain(" `a` > b "), Cow::Borrowed(" `a` > b ")));
        assert!(matches!(value(" a > b "), Cow::Borrowed("a > b")));
    }

    #[test]
    fn the_first_link_is_no_mention() {
        let link = first_link("<@U1> <!here> `<https://x.example/?a&amp;b|c>` <https://y.example>");
        assert_eq!(link.unwrap(), "https://x.example/?a&b");
        assert!(first_link("&lt;https://x.example&gt; <@U1>").is_none());
    }

    #[test]
    fn a_megabyte_of_brackets_takes_linear_time() {
        for text in ["<".repeat(1_000_000), "<a".repeat(500_000), "&".repeat(1_000_000)] {
            assert_eq!(plain(&text), text);
            assert_eq!(value(&text), text);
            assert_eq!(label(&text), text);
        }
        for marks in ["*", "_~", "* ", "`", ":", "\u{200b}"] {
            let text = marks.repeat(1_000_000);
            assert!(value(&text).len() <= text.len());
            assert_eq!(label(&text), "");
        }
    }

    #[test]
    fn a_label_is_what_slack_shows() {
        for (text, shown) in [
            ("Risk Level", "Risk Level"),
            ("`*Risk Level*`:", "Risk Level"),
            ("R&amp;D: ", "R&D"),
            ("a: b", "a: b"),
            ("<https://x.example>", "https://x.example"),
            ("*<https://x.example|Risk> Level*", "Risk Level"),
            ("<@U1|kim>", "@kim"),
            ("*_~`: \u{200b}", ""),
        ] {
            assert_eq!(label(text), shown, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_slack_escapes_comes_back(text: String) {
            let escaped = escape(&text);
            prop_assert_eq!(plain(&escaped), text.as_str());
            prop_assert_eq!(unescape(&escaped), text.as_str());
        }

        #[test]
        fn a_link_becomes_its_url(
            url in "https?://[a-z.]{1,20}/[!-~]{0,20}",
            label in "[^|<>\n]{0,20}",
        ) {
            let text = format!("`<{}|{}>`", escape(&url).replace('|', "%7C"), escape(&label));
            let url = url.replace('|', "%7C");
            prop_assert_eq!(value(&text), url.as_str());
            prop_assert_eq!(first_link(&text).unwrap(), url.as_str());
        }

        #[test]
        fn marks_around_a_value_change_nothing(
            inner in "[a-zA-Z0-9./?=&-]{1,30}",
            marks in "[*_~ \u{a0}\u{200b}]{0,6}",
        ) {
            let mirrored: String = marks.chars().rev().collect();
            let marked = format!("{marks}{inner}{mirrored}");
            prop_assert_eq!(value(&marked), inner.as_str());
            let titled = format!("{marks}`{inner}`{mirrored}:");
            prop_assert_eq!(label(&titled), inner.as_str());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[<>&|`*_~:@#!a-z; \n\u{200b}\u{fffd}]{0,40}") {
            prop_assert!(plain(&text).len() <= text.len() + 1);
            prop_assert!(value(&text).len() <= text.len() + 1);
            prop_assert!(label(&text).len() <= text.len() + 1);
            first_link(&text);
        }
    }
}
