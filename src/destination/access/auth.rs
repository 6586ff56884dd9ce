//! Credentials of a request, as a preset describes them: fixed headers and query keys, a signature
//! of the body, or a token that is fetched first (`token.rs`).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;
use sha2::Sha256;

use super::{redact::MASK, token::TokenSource};
use crate::destination::{
    error::SetupError,
    headers,
    preset::template::{TemplateError, environment},
};

/// One entry of `auth` in a preset. Every text is a template that sees `params`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(in crate::destination) enum AuthFile {
    /// A header with that name, left out if its value renders empty.
    Header { name: String, value: String },
    /// An `Authorization: Bearer` header.
    Bearer(String),
    /// An `Authorization: Basic` header.
    Basic { user: String, password: String },
    /// A key of the query.
    Query { name: String, value: String },
    /// A header with the hex HMAC-SHA256 of the body.
    Hmac {
        header: String,
        key: String,
        #[serde(default)]
        prefix: String,
    },
    /// A token by OAuth 2 client credentials.
    Oauth2 { token_url: String, client_id: String, client_secret: String, scope: String },
    /// A service account of Google, by its JSON key.
    Google { key: String, scope: String },
}

/// The credentials, with the parameters filled in.
#[derive(Default)]
pub(in crate::destination) struct Grants {
    pub(in crate::destination) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::destination) query: Vec<(String, String)>,
    pub(in crate::destination) hmac: Vec<BodyMac>,
    pub(in crate::destination) token: Option<TokenSource>,
    /// Texts that must be masked.
    pub(in crate::destination) hidden: Vec<String>,
}

pub(in crate::destination) struct BodyMac {
    pub(in crate::destination) header: HeaderName,
    prefix: String,
    mac: Hmac<Sha256>,
}

impl BodyMac {
    pub(in crate::destination) fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(body);
        format!("{}{}", self.prefix, hex::encode(mac.finalize().into_bytes()))
    }
}

impl AuthFile {
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::Header { name, value } => vec![name, value],
            Self::Query { value, .. } | Self::Bearer(value) => vec![value],
            Self::Basic { user, password } => vec![user, password],
            Self::Hmac { key, .. } => vec![key],
            Self::Oauth2 { token_url, client_id, client_secret, scope } => {
                vec![token_url, client_id, client_secret, scope]
            }
            Self::Google { key, scope } => vec![key, scope],
        }
    }

    /// Returns one word for the documentation.
    pub(in crate::destination) fn describe(&self) -> String {
        match self {
            Self::Header { name, value } => format!("header `{name}: {value}`"),
            Self::Bearer(value) => format!("header `Authorization: Bearer {value}`"),
            Self::Basic { user, password } => format!("HTTP Basic, `{user}:{password}`"),
            Self::Query { name, value } => format!("query `{name}={value}`"),
            Self::Hmac { header, .. } => format!("HMAC-SHA256 of the body in `{header}`"),
            Self::Oauth2 { token_url, .. } => {
                format!("OAuth 2 client credentials, token from `{token_url}`")
            }
            Self::Google { .. } => "service account of Google (signed JWT, one-hour token)".into(),
        }
    }
}

/// Checks that the templates compile and read only parameters that exist.
pub(in crate::destination) fn check(
    auth: &[AuthFile],
    has_param: impl Fn(&str) -> bool,
) -> Result<(), TemplateError> {
    let env = environment(UndefinedBehavior::Strict);
    for text in auth.iter().flat_map(AuthFile::texts) {
        let template = env
            .template_from_str(text)
            .map_err(|error| TemplateError::from_jinja("auth", &error))?;
        for name in template.undeclared_variables(true) {
            if !name.strip_prefix("params.").is_some_and(&has_param) {
                let reason = format!("there is no `{name}`: auth sees the parameters only");
                return Err(TemplateError::new("auth", reason));
            }
        }
    }
    Ok(())
}

/// Fills in the parameters.
///
/// # Errors
/// Returns [`SetupError`] for a value that a header cannot have, or a key that is not valid.
pub(in crate::destination) fn grants(
    auth: &[AuthFile],
    params: &Value,
) -> Result<Grants, SetupError> {
    let env = environment(UndefinedBehavior::Strict);
    let mut grants = Grants::default();
    for entry in auth {
        add(&env, entry, params, &mut grants)?;
    }
    Ok(grants)
}

fn add(
    env: &Environment<'_>,
    entry: &AuthFile,
    params: &Value,
    grants: &mut Grants,
) -> Result<(), SetupError> {
    let fill = |text: &str| {
        env.render_str(text, context! { params => params.clone() })
            .map_err(|error| SetupError::Template(TemplateError::from_jinja("auth", &error)))
    };
    match entry {
        AuthFile::Header { name, value } => {
            let value = fill(value)?;
            if !value.is_empty() {
                grants.headers.push(header(&fill(name)?, &value)?);
            }
            grants.hidden.push(value);
        }
        AuthFile::Bearer(value) => {
            let value = fill(value)?;
            grants.headers.push(header(AUTHORIZATION.as_str(), &format!("Bearer {value}"))?);
            grants.hidden.push(value);
        }
        AuthFile::Basic { user, password } => {
            let pair = BASE64_STANDARD.encode(format!("{}:{}", fill(user)?, fill(password)?));
            grants.headers.push(header(AUTHORIZATION.as_str(), &format!("Basic {pair}"))?);
            grants.hidden.extend([pair, fill(password)?]);
        }
        AuthFile::Query { name, value } => {
            let value = fill(value)?;
            grants.hidden.push(value.clone());
            grants.query.push((name.clone(), value));
        }
        AuthFile::Hmac { header: name, key, prefix } => {
            let key = fill(key)?;
            let mac = Hmac::new_from_slice(key.as_bytes())
                .map_err(|_never| SetupError::Auth("the HMAC key cannot be used".into()))?;
            let (header, _) = header(name, "")?;
            grants.hmac.push(BodyMac { header, prefix: prefix.clone(), mac });
            grants.hidden.push(key);
        }
        AuthFile::Oauth2 { token_url, client_id, client_secret, scope } => {
            let secret = fill(client_secret)?;
            grants.hidden.push(secret.clone());
            let (url, id) = (fill(token_url)?, fill(client_id)?);
            grants.token = Some(TokenSource::oauth2(&url, id, secret, fill(scope)?)?);
        }
        AuthFile::Google { key, scope } => {
            let key = fill(key)?;
            grants.token = match key.as_str() {
                // A placeholder, for `render`.
                MASK => Some(TokenSource::Shown),
                key => Some(TokenSource::google(key, fill(scope)?)?),
            };
        }
    }
    Ok(())
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), SetupError> {
    let (name, mut value) = headers::parse(name, value)?;
    value.set_sensitive(true);
    Ok((name, value))
}
