//! Identifiers: names of apps and destinations, ids of channels, messages and alerts.
//!
//! Each identifier is a type of its own, so that a channel cannot be passed where a destination
//! belongs.

use std::{fmt, str::FromStr, sync::Arc};

/// Reason why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text does not match `[a-z0-9][a-z0-9-]{0,62}`.
    #[error("`{0}` is not a name: use 1 to 63 of a-z, 0-9 and -, not starting with -")]
    Name(String),
    /// The text is not seconds, a dot and decimals.
    #[error("`{0}` is not a Slack timestamp such as 1600689944.000500")]
    Timestamp(String),
    /// The text is not `app:channel:ts:ordinal`.
    #[error("`{0}` is not an alert id such as main:C0123456789:1600689944.000500:0")]
    Alert(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text against `[a-z0-9][a-z0-9-]{0,62}`.
            ///
            /// # Errors
            /// Returns [`IdError::Name`] if the text does not match.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                let rest = |b: u8| plain(b) || b == b'-';
                let valid = text.len() <= 63
                    && text.bytes().next().is_some_and(plain)
                    && text.bytes().all(rest);
                if valid { Ok(Self(text.into())) } else { Err(IdError::Name(text.to_owned())) }
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The configured name of a Slack app, which is the first part of every alert id.
    AppName
);
name!(
    /// The configured name of a destination.
    DestinationName
);

/// A Slack conversation id such as `C0123456789`. Every text that Slack sends is accepted, except
/// that a colon becomes `_`, since it separates the parts of an alert id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Arc<str>);

impl ChannelId {
    /// Returns the id for the text that Slack sent.
    pub fn new(text: &str) -> Self {
        if text.contains(':') { Self(text.replace(':', "_").into()) } else { Self(text.into()) }
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Slack message timestamp as whole microseconds; never a float, which would round.
///
/// ```
/// use slack_soar_relay::ids::MessageTs;
/// let ts: MessageTs = "1600689944.0005".parse().unwrap();
/// assert_eq!(ts.micros(), 1_600_689_944_000_500);
/// assert_eq!(ts.to_string(), "1600689944.000500");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageTs(i64);

impl MessageTs {
    /// Returns the timestamp that many microseconds after the epoch; a negative number becomes
    /// zero.
    pub const fn from_micros(micros: i64) -> Self {
        Self(if micros < 0 { 0 } else { micros })
    }

    /// Returns microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Returns milliseconds since the epoch, rounded half to even.
    ///
    /// ```
    /// use slack_soar_relay::ids::MessageTs;
    /// assert_eq!(MessageTs::from_micros(1_500).millis(), 2);
    /// assert_eq!(MessageTs::from_micros(2_500).millis(), 2);
    /// ```
    pub const fn millis(self) -> i64 {
        div_half_even(self.0, 1_000)
    }
}

/// Returns `value / by`, a half rounded to the even neighbour. Neither may be negative.
///
/// ```
/// use slack_soar_relay::ids::div_half_even;
/// assert_eq!(div_half_even(25, 10), 2);
/// assert_eq!(div_half_even(35, 10), 4);
/// assert_eq!(div_half_even(26, 10), 3);
/// ```
pub const fn div_half_even(value: i64, by: i64) -> i64 {
    let (whole, rest) = (value / by, value % by);
    let double = rest.saturating_mul(2);
    if double > by || (double == by && whole % 2 == 1) { whole + 1 } else { whole }
}

/// Parses seconds, milliseconds (13 digits before the dot) or microseconds (16 digits), as a
/// program between Slack and the relay may have written them. Surrounding blanks are ignored, and
/// digits beyond the microsecond are cut off, so every form of a timestamp is the same identity.
impl FromStr for MessageTs {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        micros(text.trim())
            .map(Self)
            .ok_or_else(|| IdError::Timestamp(text.chars().take(40).collect()))
    }
}

fn micros(text: &str) -> Option<i64> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    // Seconds with 11 digits last until the year 5138; milliseconds have had 13 since 2001.
    let decimals = match whole.len() {
        1..=11 => 6,
        13 => 3,
        16 => 0,
        _ => return None,
    };
    let digits =
        whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(decimals));
    Some(digits.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0')))
}

impl fmt::Display for MessageTs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// The `ts` in a message's identity, or its substitute.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TsKey {
    /// Slack's own timestamp, unique in its channel.
    Ts(MessageTs),
    /// First eight bytes of the SHA-256 of a message without a readable timestamp.
    Digest([u8; 8]),
}

impl fmt::Display for TsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ts(ts) => ts.fmt(f),
            Self::Digest(digest) => write!(f, "ts-{}", hex::encode(digest)),
        }
    }
}

impl FromStr for TsKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some(digits) = text.strip_prefix("ts-") else {
            return text.parse().map(Self::Ts);
        };
        let mut digest = [0; 8];
        hex::decode_to_slice(digits, &mut digest)
            .map_err(|_not_hex| IdError::Timestamp(text.to_owned()))?;
        Ok(Self::Digest(digest))
    }
}

/// The identity of a Slack message: `app:channel:ts`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageKey {
    /// Configured name of the app that received the message.
    pub app: AppName,
    /// Channel of the message.
    pub channel: ChannelId,
    /// Timestamp of the message, or its substitute.
    pub ts: TsKey,
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.app, self.channel, self.ts)
    }
}

impl FromStr for MessageKey {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Alert(text.to_owned());
        let mut parts = text.splitn(3, ':');
        let (app, channel, ts) = (parts.next(), parts.next(), parts.next());
        let (app, channel, ts) =
            (app.ok_or_else(wrong)?, channel.ok_or_else(wrong)?, ts.ok_or_else(wrong)?);
        Ok(Self { app: app.parse()?, channel: ChannelId::new(channel), ts: ts.parse()? })
    }
}

/// The identity of an alert, and its idempotency key at every destination:
/// `app:channel:ts:ordinal`.
///
/// ```
/// use slack_soar_relay::ids::AlertId;
/// let id: AlertId = "main:C0123456789:1600689944.000500:0".parse().unwrap();
/// assert_eq!(id.ordinal, 0);
/// assert_eq!(id.to_string(), "main:C0123456789:1600689944.000500:0");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AlertId {
    /// Message that holds the incident.
    pub message: MessageKey,
    /// Position among the message's matching attachments, from 0.
    pub ordinal: u32,
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.message, self.ordinal)
    }
}

impl FromStr for AlertId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Alert(text.to_owned());
        let (message, ordinal) = text.rsplit_once(':').ok_or_else(wrong)?;
        Ok(Self {
            message: message.parse().map_err(|_part| wrong())?,
            ordinal: ordinal.parse().map_err(|_not_a_number| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_documented_pattern() {
        for good in ["a", "main", "0-x", &"a".repeat(63)] {
            assert!(AppName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Main", "a_b", "ä", &"a".repeat(64)] {
            assert!(AppName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_timestamp_that_is_no_timestamp_is_refused() {
        for bad in [
            "",
            " ",
            "abc",
            ".5",
            "5.",
            "-1.0",
            "+1.0",
            "1e9",
            "1.5e9",
            "123456789012.0",
            "12345678901234.0",
            "1.0.0",
            "1 .0",
            "1.0x",
            "1.0000000x",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<MessageTs>().is_err(), "{bad}");
        }
        assert_eq!("5".parse::<MessageTs>().unwrap().micros(), 5_000_000);
    }

    #[test]
    fn a_timestamp_keeps_its_microseconds_in_whatever_form_it_comes() {
        for same in [
            "1795939372.000388",
            " 1795939372.000388\n",
            "\u{a0}1795939372.000388\t",
            "1795939372.0003889",
            "1795939372.00038899999999999999999999",
            "1795939372000.388",
            "1795939372000.3889",
            "1795939372000388",
            "1795939372000388.9",
        ] {
            let ts = same.parse::<MessageTs>().unwrap();
            assert_eq!(ts.micros(), 1_795_939_372_000_388, "{same}");
            assert_eq!(ts.to_string(), "1795939372.000388");
        }
        for (short, micros) in [
            ("1795939372", 1_795_939_372_000_000),
            ("1795939372.5", 1_795_939_372_500_000),
            ("1795939372500", 1_795_939_372_500_000),
            ("1795939372500.1", 1_795_939_372_500_100),
        ] {
            assert_eq!(short.parse::<MessageTs>().unwrap().micros(), micros, "{short}");
        }
    }

    #[test]
    fn a_message_without_a_timestamp_has_a_readable_id() {
        let id = "main:C1:ts-00ff00ff00ff00ff:3".parse::<AlertId>().unwrap();
        assert_eq!(id.to_string(), "main:C1:ts-00ff00ff00ff00ff:3");
        assert!("main:C1:ts-00ff:3".parse::<AlertId>().is_err());
        assert!("main:C1".parse::<AlertId>().is_err());
    }

    proptest! {
        #[test]
        fn every_timestamp_survives_the_round_trip(micros in 0_i64..=99_999_999_999_999_999) {
            let ts = MessageTs::from_micros(micros);
            prop_assert_eq!(ts.to_string().parse::<MessageTs>().unwrap(), ts);
        }

        #[test]
        fn digits_beyond_the_microsecond_are_cut_off(
            micros in 0_i64..=99_999_999_999_999_999, more in "[0-9]{1,30}",
        ) {
            let ts = MessageTs::from_micros(micros);
            prop_assert_eq!(format!(" {ts}{more} ").parse::<MessageTs>().unwrap(), ts);
        }

        #[test]
        fn no_text_is_a_timestamp_by_a_panic(text in "[0-9. \u{200b}e+-]{0,40}") {
            if let Ok(ts) = text.parse::<MessageTs>() {
                prop_assert_eq!(ts.to_string().parse::<MessageTs>().unwrap(), ts);
            }
        }

        #[test]
        fn milliseconds_are_within_half_of_one(micros in 0_i64..=99_999_999_999_999_999) {
            let ts = MessageTs::from_micros(micros);
            prop_assert!((ts.millis() * 1_000 - micros).abs() <= 500);
        }
    }
}
