//! Titles by which an incident and the fields of an incident are recognised.

use regex::Regex;

use super::labels::same_title;
use crate::slack::mrkdwn;

/// Title of the attachments that Code Defender posts today.
pub const DEFAULT_TITLE: &str = "Code Defender has detected a new incident";

/// Titles of incidents and of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchSettings {
    /// Titles of incidents.
    pub titles: Vec<TitlePattern>,
    /// Titles of an incident's fields.
    pub fields: FieldTitles,
}

impl Default for MatchSettings {
    fn default() -> Self {
        let title = TitlePattern(Pattern::Text(DEFAULT_TITLE.to_owned()));
        Self { titles: vec![title], fields: FieldTitles::default() }
    }
}

/// Titles of an incident's fields, compared without case. In each list the first title whose field
/// has a value is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTitles {
    /// Titles of the script field.
    pub script: Vec<String>,
    /// Titles of the risk level field.
    pub risk: Vec<String>,
    /// Titles of the host domain field.
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

/// One title of incidents: a text that must be equal, ignoring case, markup and surrounding white
/// space, or a `/regular expression/` that must match.
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

/// Reason why a text is not a valid title pattern.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TitleError {
    /// An empty title, which would match attachments without a title.
    #[error("a title must not be empty")]
    Empty,
    /// A regular expression that does not compile.
    #[error("the title `{pattern}` is not a valid regular expression")]
    Regex {
        /// Text between the slashes.
        pattern: String,
        /// Error of the regex compiler.
        #[source]
        source: regex::Error,
    },
}

impl TitlePattern {
    /// Parses a title from the configuration.
    ///
    /// ```
    /// use slack_soar_relay::code_defender::settings::TitlePattern;
    /// let title = TitlePattern::parse("/(?i)new (incident|finding)$/").unwrap();
    /// assert!(title.matches("Client-side Defense: New Finding"));
    /// assert!(TitlePattern::parse("new incident").unwrap().matches(" New Incident "));
    /// ```
    ///
    /// # Errors
    /// [`TitleError`] if the title is empty or not a valid regular expression.
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

    /// Returns the title, or `None` for a regular expression.
    pub fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Pattern::Text(text) => Some(text),
            Pattern::Regex(_) => None,
        }
    }

    /// Returns whether a posted title matches. Entities in `title` must be decoded.
    pub fn matches(&self, title: &str) -> bool {
        match &self.0 {
            Pattern::Text(text) => same_title(title, text),
            Pattern::Regex(regex) => {
                regex.is_match(title.trim()) || regex.is_match(&mrkdwn::label(title))
            }
        }
    }
}
