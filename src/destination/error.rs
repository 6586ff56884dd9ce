//! Reasons why a destination cannot be set up.

use super::preset::template::TemplateError;
use crate::http_client::ClientError;

/// Reason why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL is not one that a request can be sent to. Not shown, since it is a secret.
    #[error("the url {0}")]
    Url(String),
    /// A header cannot be sent.
    #[error("the header `{name}` {reason}")]
    Header {
        /// Name of the header.
        name: String,
        /// Description of the mistake.
        reason: &'static str,
    },
    /// The credentials that the preset needs cannot be used.
    #[error("{0}")]
    Auth(String),
    /// The signing secret cannot be used.
    #[error("{0}")]
    Signing(String),
    /// The parameters do not fit the preset.
    #[error("params: {}", _0.join("; "))]
    Params(Vec<String>),
    /// A setting that only an HTTP request can have is set for another transport.
    #[error("`{0}` is for presets that speak HTTP, and this one does not: remove it")]
    OnlyHttp(&'static str),
    /// The preset cannot render a request with these parameters.
    #[error("the preset makes no request with these params")]
    Template(#[from] TemplateError),
    /// The HTTP client cannot be built.
    #[error("the connection cannot be set up")]
    Client(#[from] ClientError),
}
