//! Severity that Code Defender gives an incident.

use crate::slack::mrkdwn;

/// Level of Code Defender, from the least to the most severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RiskLevel {
    /// Information without a risk.
    Informative,
    /// Low risk level.
    Low,
    /// Medium risk level.
    Medium,
    /// High risk level; an unknown level counts as high.
    High,
    /// Critical risk level.
    Critical,
}

impl RiskLevel {
    /// Parses the word of a level, ignoring case, or one of the aliases `informational`, `info` and
    /// `moderate`.
    ///
    /// ```
    /// use slack_soar_relay::code_defender::risk_level::RiskLevel;
    /// assert_eq!(RiskLevel::parse(" high "), Some(RiskLevel::High));
    /// assert_eq!(RiskLevel::parse("Severe"), None);
    /// ```
    pub fn parse(word: &str) -> Option<Self> {
        const WORDS: [(&str, RiskLevel); 8] = [
            ("informative", RiskLevel::Informative),
            ("informational", RiskLevel::Informative),
            ("info", RiskLevel::Informative),
            ("low", RiskLevel::Low),
            ("medium", RiskLevel::Medium),
            ("moderate", RiskLevel::Medium),
            ("high", RiskLevel::High),
            ("critical", RiskLevel::Critical),
        ];
        let known = |(known, _): &&(&str, Self)| word.trim().eq_ignore_ascii_case(known);
        WORDS.iter().find(known).map(|(_, level)| *level)
    }

    /// Returns the word of the level in the configuration, in alerts and in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informative => "informative",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// Returns the word of the level as Code Defender writes it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Informative => "Informative",
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// Severity as read from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Risk {
    /// Value of the field, as Slack sent it, or empty.
    pub raw: String,
    /// Level that the incident counts as.
    pub level: RiskLevel,
    /// `true` if `raw` names a level. If not, the incident counts as high, to be on the safe side.
    pub recognised: bool,
}

impl Risk {
    /// Reads the value of the field, ignoring markup.
    pub fn read(raw: &str) -> Self {
        let known = RiskLevel::parse(&mrkdwn::label(raw));
        Self {
            raw: raw.to_owned(),
            level: known.unwrap_or(RiskLevel::High),
            recognised: known.is_some(),
        }
    }

    /// Returns whether the field is absent, or holds only markup and blanks.
    pub fn is_missing(&self) -> bool {
        mrkdwn::label(&self.raw).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_parsed_from_each_of_its_two_words() {
        use RiskLevel::{Critical, High, Informative, Low, Medium};
        let levels = [Informative, Low, Medium, High, Critical];
        assert!(levels.is_sorted());
        for level in levels {
            assert_eq!(RiskLevel::parse(level.as_str()), Some(level));
            assert_eq!(RiskLevel::parse(level.title()), Some(level));
        }
    }

    #[test]
    fn aliases_and_any_case_are_understood() {
        for (word, level) in [
            ("INFO", RiskLevel::Informative),
            ("Informational", RiskLevel::Informative),
            ("moderate", RiskLevel::Medium),
            ("\tcRiTiCaL\n", RiskLevel::Critical),
        ] {
            let risk = Risk::read(word);
            assert_eq!((risk.level, risk.recognised, &*risk.raw), (level, true, word));
        }
    }

    #[test]
    fn a_level_is_read_through_its_markup() {
        for word in [
            "*Low*",
            "`LOW`",
            "_*low*_",
            "*`Low`*",
            "`*Low*`",
            "~Low~:",
            "\u{a0}Low\u{200b}",
            "<https://docs.example/levels|Low>",
            "*Low",
        ] {
            let risk = Risk::read(word);
            assert_eq!((risk.level, risk.recognised), (RiskLevel::Low, true), "{word}");
            assert_eq!(risk.raw, word);
        }
    }

    #[test]
    fn an_unknown_or_missing_level_counts_as_high() {
        for word in ["", "Severe", "High!", "80", "hoch"] {
            let risk = Risk::read(word);
            assert_eq!((risk.level, risk.recognised), (RiskLevel::High, false), "{word}");
        }
    }
}
