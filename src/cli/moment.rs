//! Parses the points in time that an operator gives: a duration before now, or a time. Pure.

use std::time::Duration;

use crate::{config, ids::MessageTs, intake::catch_up::HistoryTime};

/// Description of the accepted forms.
const ACCEPTED: &str = "use a duration such as 24h or 7d, or a time: 2020-09-21T12:05:44Z, seconds \
    or milliseconds since 1970, or the timestamp of a message such as 1600689944.000500";

/// Start of 2012, before Slack existed. A smaller number is probably a duration without its unit.
const BEFORE_SLACK: MessageTs = MessageTs::from_micros(1_325_376_000_000_000);

/// Largest rounding error of a time in milliseconds. The connector that preceded the relay rounds
/// the timestamps of messages to milliseconds.
const ROUNDING: Duration = Duration::from_micros(500);

/// Parses the start of a period. A time in milliseconds includes every message whose timestamp is
/// rounded to this time.
///
/// # Errors
/// A sentence that describes the accepted forms.
pub(super) fn since(text: &str) -> Result<HistoryTime, String> {
    let earlier = |ts: MessageTs| ts.micros().saturating_sub(rounding(text));
    parse(text, earlier)
}

/// Parses the end of a period, which is inclusive. Times in milliseconds are treated like those of
/// [`since`].
///
/// # Errors
/// A sentence that describes the accepted forms.
pub(super) fn until(text: &str) -> Result<HistoryTime, String> {
    let later = |ts: MessageTs| ts.micros().saturating_add(rounding(text));
    parse(text, later)
}

fn parse(text: &str, shifted: impl Fn(MessageTs) -> i64) -> Result<HistoryTime, String> {
    let text = text.trim();
    if let Some(ago) = config::duration(text) {
        return Ok(HistoryTime::Ago(ago));
    }
    let rfc3339 =
        text.parse::<jiff::Timestamp>().map(|at| MessageTs::from_micros(at.as_microsecond()));
    let number = || text.parse().ok().filter(|ts: &MessageTs| *ts >= BEFORE_SLACK);
    let ts = rfc3339.ok().or_else(number);
    let ts = ts.ok_or_else(|| format!("`{text}` is not a point in time: {ACCEPTED}"))?;
    Ok(HistoryTime::At(MessageTs::from_micros(shifted(ts))))
}

/// Returns the possible rounding error in microseconds: only 13 digits are milliseconds.
fn rounding(text: &str) -> i64 {
    let is_millis =
        text.trim().len() == 13 && text.trim().bytes().all(|byte| byte.is_ascii_digit());
    if is_millis { i64::try_from(ROUNDING.as_micros()).unwrap_or_default() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_the_message_names_is_accepted() {
        let at = |micros| HistoryTime::At(MessageTs::from_micros(micros));
        for (text, moment) in [
            ("24h", HistoryTime::Ago(Duration::from_secs(24 * 3600))),
            ("0s", HistoryTime::Ago(Duration::ZERO)),
            ("1600689944", at(1_600_689_944_000_000)),
            (" 1600689944.000500 ", at(1_600_689_944_000_500)),
            ("1600689944000500", at(1_600_689_944_000_500)),
            ("2020-09-21T12:05:44Z", at(1_600_689_944_000_000)),
            ("2020-09-21T14:05:44.0005+02:00", at(1_600_689_944_000_500)),
        ] {
            assert_eq!(since(text), Ok(moment), "{text}");
            assert_eq!(until(text), Ok(moment), "{text}");
        }
    }

    #[test]
    fn milliseconds_include_every_message_that_is_rounded_to_them() {
        let at = |micros| Ok(HistoryTime::At(MessageTs::from_micros(micros)));
        assert_eq!(since("1600689944000"), at(1_600_689_943_999_500));
        assert_eq!(until("1600689944000"), at(1_600_689_944_000_500));
    }

    #[test]
    fn an_invalid_time_is_refused_with_the_accepted_forms() {
        for text in [
            "",
            "yesterday",
            "-1",
            "2020-09-21",
            "2020-09-21T12:05:44",
            "1.5h",
            "1e9",
            "6",
            "86400",
        ] {
            let problem = since(text).unwrap_err();
            assert!(
                problem.contains("2020-09-21T12:05:44Z") && problem.contains(text),
                "{problem}"
            );
        }
    }
}
