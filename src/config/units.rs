//! Durations, sizes and rates in the form of the configuration file, always with a unit. Pure.

use std::{borrow::Cow, fmt, num::NonZeroU32, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A duration such as `"30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A size such as `"4MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A rate such as `"60/min"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_minute: NonZeroU32,
    /// `true` if a rate per hour was rounded down to a whole number per minute.
    pub(super) is_rounded: bool,
}

/// Parses a duration in the form of the configuration file: `30s`, `10m`, `72h`.
pub fn duration(text: &str) -> Option<Duration> {
    Span::parse(text).map(|span| span.0)
}

impl Span {
    pub(super) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(Self(Duration::from_millis(number.checked_mul(millis)?)))
    }
}

impl Size {
    pub(super) const fn gibibytes(gibibytes: u64) -> Self {
        Self(gibibytes * 1024 * 1024 * 1024)
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let power = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|known| *known == unit)?;
        number.checked_mul(1024_u64.checked_pow(u32::try_from(power).ok()?)?).map(Self)
    }
}

impl Rate {
    /// Converts to a rate per minute, the unit of the limiter. Slower rates than one per minute are
    /// not supported.
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_once('/')?;
        let number: u32 = number.parse().ok()?;
        let per_minute = match unit {
            "s" => number.checked_mul(60)?,
            "min" => number,
            "h" => number / 60,
            _ => return None,
        };
        let is_rounded = unit == "h" && !number.is_multiple_of(60);
        NonZeroU32::new(per_minute).map(|per_minute| Self { per_minute, is_rounded })
    }
}

/// Formats with the largest unit that a person would use.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        // A unit must fit at least this often: 24h is more common than 1d.
        let units = [("d", 86_400_000, 10), ("h", 3_600_000, 2), ("m", 60_000, 2), ("s", 1_000, 1)];
        let fits = |(_, unit, min): &(&str, u128, u128)| {
            millis.is_multiple_of(*unit) && millis / unit >= *min
        };
        match units.into_iter().find(fits) {
            Some((name, unit, _)) => write!(f, "{}{name}", millis / unit),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match units.into_iter().find(|(_, power)| self.0 > 0 && self.0.trailing_zeros() >= *power) {
            Some((name, power)) => write!(f, "{}{name}", self.0 >> power),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Defaults are shown in the schema as they would be written in the file.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits a text into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

macro_rules! unit {
    ($name:ident, $pattern:literal, $example:literal, $about:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let wrong = || D::Error::custom(format!("`{text}` is not {}", $about));
                Self::parse(&text).ok_or_else(wrong)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "pattern": $pattern, "description": $about,
                    "examples": [$example],
                })
            }
        }
    };
}

unit!(Span, "^[0-9]{1,9}(ms|s|m|h|d)$", "30s", "a duration such as \"30s\", \"10m\" or \"72h\"");
unit!(Size, "^[0-9]{1,9}(B|KiB|MiB|GiB|TiB)$", "4MiB", "a size such as \"4MiB\" or \"1GiB\"");
unit!(
    Rate,
    "^[1-9][0-9]{0,6}/(s|min|h)$",
    "60/min",
    "a rate such as \"60/min\" or \"2/s\", at least 1/min"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required() {
        assert_eq!(Span::parse("10m"), Some(Span::seconds(600)));
        assert_eq!(Span::parse("500ms").map(|span| span.0), Some(Duration::from_millis(500)));
        assert_eq!(Size::parse("4MiB"), Some(Size(4 * 1024 * 1024)));
        assert_eq!(Rate::parse("2/s").map(|rate| rate.per_minute.get()), Some(120));
        for text in ["500ms", "15s", "60s", "90s", "10m", "24h", "72h", "30d"] {
            assert_eq!(Span::parse(text).map(|span| span.to_string()).as_deref(), Some(text));
        }
        for text in ["1GiB", "3MiB", "1500B"] {
            assert_eq!(Size::parse(text).map(|size| size.to_string()).as_deref(), Some(text));
        }
        for bad in ["", "30", "s", "-1s", "1.5h", "30 s", "99999999999999999999s"] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
        assert_eq!(Size::parse("4MB"), None);
        assert_eq!(Rate::parse("0/min"), None);
    }
}
