//! Why a destination cannot be set up.

use super::preset::template::TemplateError;
use crate::http_client::ClientError;

/// Why a destination cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL is none that a request can be sent to. Not shown: it is a secret.
    #[error("the url {0}")]
    Url(String),
    /// A header cannot be sent.
    #[error("the header `{name}` {reason}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What the preset needs to prove who we are cannot be used.
    #[error("{0}")]
    Auth(String),
    /// The signing secret is none.
    #[error("{0}")]
    Signing(String),
    /// The parameters do not suit the preset.
    #[error("params: {}", _0.join("; "))]
    Params(Vec<String>),
    /// Something is set that only a request of HTTP has.
    #[error("`{0}` is for presets that speak HTTP, and this one does not: remove it")]
    OnlyHttp(&'static str),
    /// The preset makes no request with these parameters.
    #[error("the preset makes no request with these params")]
    Template(#[from] TemplateError),
    /// The HTTP client cannot be built.
    #[error("the connection cannot be set up")]
    Client(#[from] ClientError),
}
