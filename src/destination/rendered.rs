//! A request for an operator to look at before it is sent.

use std::fmt;

/// Word in the method's place for a mail or a line.
pub(super) const SEND: &str = "SEND";

/// Word in the method's place for a feed.
pub(super) const GIVE: &str = "GIVE";

/// A request that may be shown: every secret is `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedRequest {
    /// Method: `POST`, or `SEND` for a mail or a line, or `GIVE` for a feed.
    pub method: String,
    /// Scheme and host of the destination, `***` for its path and query, and the text that the
    /// preset appends.
    pub url: String,
    /// Headers in the order of their names.
    pub headers: Vec<(String, String)>,
    /// Body as JSON.
    pub body: String,
}

impl fmt::Display for RenderedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if [SEND, GIVE].contains(&self.method.as_str()) { "" } else { " HTTP/1.1" };
        writeln!(f, "{} {}{protocol}", self.method, self.url)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        write!(f, "\n{}", self.body)
    }
}
