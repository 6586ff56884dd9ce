//! Tokens that are fetched before a request: OAuth 2 client credentials, and Google's service
//! accounts, which sign a JWT with their key and exchange it for a token.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, Url};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    destination::{
        Answer, DeliveryError,
        access::redact::Redactor,
        error::SetupError,
        transport::response::{EXCERPT_BYTES, failed, receive},
    },
    http_client::check_host,
};

/// Grant type of <https://datatracker.ietf.org/doc/html/rfc7523#section-2.1>.
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Longest life of an assertion that Google allows:
/// <https://developers.google.com/identity/protocols/oauth2/service-account>.
const JWT_LIFE_SECONDS: i64 = 3600;

/// Last part of a token's life in which it is not used, since it may end on the way: a minute, or a
/// quarter of a short life.
const RESERVE: Duration = Duration::from_secs(60);

/// Assumed life of a token without `expires_in`.
const SHORT_LIFE_SECONDS: u64 = 300;

/// Token endpoint, and the grant to ask for.
pub(in crate::destination) enum TokenSource {
    OAuth2 {
        url: Url,
        client_id: String,
        client_secret: String,
        scope: String,
    },
    Google {
        url: Url,
        email: String,
        key: Box<RsaKeyPair>,
        key_id: String,
        scope: String,
    },
    /// Placeholder for a preset that is only shown.
    Shown,
}

/// Newest token, if one was fetched.
#[derive(Default)]
pub(in crate::destination) struct TokenCache(Mutex<Option<Token>>);

struct Token {
    value: Arc<str>,
    until: Timestamp,
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    /// Life in seconds; some servers send a string.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl TokenAnswer {
    fn life(&self) -> Duration {
        let written = self.expires_in.as_str().and_then(|text| text.parse().ok());
        let seconds = self.expires_in.as_u64().or(written).unwrap_or(SHORT_LIFE_SECONDS);
        Duration::from_secs(seconds)
    }
}

impl TokenSource {
    pub(in crate::destination) fn oauth2(
        url: &str,
        client_id: String,
        client_secret: String,
        scope: String,
    ) -> Result<Self, SetupError> {
        Ok(Self::OAuth2 { url: token_url(url)?, client_id, client_secret, scope })
    }

    pub(in crate::destination) fn google(key: &str, scope: String) -> Result<Self, SetupError> {
        let wrong = |what: &str| SetupError::Auth(format!("the service account's key {what}"));
        let account: ServiceAccount = serde_json::from_str(key)
            .map_err(|_shows_the_key| wrong("is not the JSON file that Google hands out"))?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(account.private_key.as_bytes())
            .map_err(|_not_pem| wrong("holds no private_key in PEM form"))?;
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|_rejected| wrong("holds no RSA key that can be used"))?;
        Ok(Self::Google {
            url: token_url(&account.token_uri)?,
            email: account.client_email,
            key: Box::new(key),
            key_id: account.private_key_id,
            scope,
        })
    }

    fn form(&self, now: Timestamp) -> Option<(&Url, Vec<(&str, String)>)> {
        match self {
            Self::Shown => None,
            Self::OAuth2 { url, client_id, client_secret, scope } => Some((
                url,
                vec![
                    ("grant_type", "client_credentials".to_owned()),
                    ("client_id", client_id.clone()),
                    ("client_secret", client_secret.clone()),
                    ("scope", scope.clone()),
                ],
            )),
            Self::Google { url, email, key, key_id, scope } => {
                let claims = json!({
                    "iss": email, "scope": scope, "aud": url.as_str(),
                    "iat": now.seconds(), "exp": now.seconds() + JWT_LIFE_SECONDS,
                });
                let header = json!({"alg": "RS256", "typ": "JWT", "kid": key_id});
                let encode = |part: &serde_json::Value| {
                    BASE64_URL_SAFE_NO_PAD.encode(part.to_string().as_bytes())
                };
                let signed = format!("{}.{}", encode(&header), encode(&claims));
                let mut signature = vec![0; key.public().modulus_len()];
                let random = SystemRandom::new();
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).ok()?;
                let jwt = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
                Some((url, vec![("grant_type", JWT_GRANT.to_owned()), ("assertion", jwt)]))
            }
        }
    }
}

impl TokenCache {
    /// Returns a token that stays valid for some time: the last one, or a new one.
    ///
    /// # Errors
    /// Returns [`DeliveryError`] if the endpoint does not give a token.
    pub(in crate::destination) async fn get(
        &self,
        source: &TokenSource,
        client: &Client,
        clock: &Clock,
        redactor: &Redactor,
    ) -> Result<Arc<str>, DeliveryError> {
        let mut newest = self.0.lock().await;
        if let Some(token) = newest.as_ref().filter(|token| clock.now() < token.until) {
            return Ok(Arc::clone(&token.value));
        }
        let token = fetch(source, client, clock, redactor).await?;
        let value = Arc::clone(&token.value);
        *newest = Some(token);
        Ok(value)
    }

    /// Discards a token that a receiver refused with 401. A newer one is kept.
    pub(in crate::destination) async fn forget(&self, refused: &str) {
        let mut newest = self.0.lock().await;
        if newest.as_ref().is_some_and(|token| &*token.value == refused) {
            *newest = None;
        }
    }
}

async fn fetch(
    source: &TokenSource,
    client: &Client,
    clock: &Clock,
    redactor: &Redactor,
) -> Result<Token, DeliveryError> {
    let asked_at = clock.now();
    let refused = |status, text: &str| Answer {
        status,
        excerpt: redactor.excerpt(&format!("no access token: {text}"), EXCERPT_BYTES),
    };
    let Some((url, form)) = source.form(asked_at) else {
        return Err(DeliveryError::Auth(refused(0, "the key cannot sign")));
    };
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let sent = client
        .post(url.clone())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(body)
        .send()
        .await;
    let response = sent.map_err(|error| failed(error, redactor))?;
    let reply = receive(response, asked_at).await.reply;
    match (reply.status, serde_json::from_str::<TokenAnswer>(&reply.text)) {
        (200..=299, Ok(answer)) => {
            let life = answer.life();
            let until = asked_at + life.saturating_sub(RESERVE.min(life / 4));
            Ok(Token { value: answer.access_token.into(), until })
        }
        // The answer is not shown, since it may contain a token.
        (status @ 200..=299, Err(_)) => {
            Err(DeliveryError::Destination(refused(status, "the answer cannot be read")))
        }
        // Refused clients and grants are answered with 400: RFC 6749, section 5.2.
        (400 | 401 | 403, _) => Err(DeliveryError::Auth(refused(reply.status, &reply.text))),
        (status, Ok(_)) => Err(DeliveryError::Destination(refused(status, ""))),
        (status, Err(_)) => Err(DeliveryError::Destination(refused(status, &reply.text))),
    }
}

fn token_url(url: &str) -> Result<Url, SetupError> {
    let wrong = || SetupError::Auth(format!("`{url}` is not the address of a token endpoint"));
    let url = Url::parse(url).map_err(|_wrong| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || check_host(&url).is_err() {
        return Err(wrong());
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
