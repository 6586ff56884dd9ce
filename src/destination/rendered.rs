//! A request as an operator may see it, before it is sent.

use std::fmt;

/// Stands in the method's place where none is sent.
pub(super) const SEND: &str = "SEND";

/// Stands there where a reader comes and asks.
pub(super) const GIVE: &str = "GIVE";

/// A request as it may be shown: every secret is `***`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedRequest {
    /// `POST`; `SEND` for a mail or a line, `GIVE` for what a reader gets.
    pub method: String,
    /// The scheme and host of the destination; its path and query are masked, what the preset
    /// appends to them is not.
    pub url: String,
    /// In the order of their names.
    pub headers: Vec<(String, String)>,
    /// JSON.
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
