//! Access to the API.
//!
//! With a token, each request must carry it. Without one, the API is open to this machine only: a
//! browser on this machine must not be tricked into using it, so `Host` must be loopback (a rebound
//! name is not) and writes must be JSON (which a form of another site cannot send). On any other
//! address there is no API.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header, uri::Authority};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;
use crate::secret::Secret;

/// Proof that requests to the API need that they are allowed.
#[derive(Clone, Debug)]
pub enum Auth {
    /// By `Authorization: Bearer` with this token.
    Token(Secret),
    /// By coming from this machine.
    Loopback,
    /// Not at all: the API is off.
    Off,
}

impl Auth {
    /// Returns the guard of an API that listens on `listens_on`.
    pub fn new(token: Option<Secret>, listens_on: SocketAddr) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if listens_on.ip().is_loopback() => Self::Loopback,
            None => Self::Off,
        }
    }

    /// Returns the name of the proof, for the journal.
    pub(super) const fn proof(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Loopback => "loopback",
            Self::Off => "off",
        }
    }

    /// Checks that a request is allowed.
    ///
    /// # Errors
    /// Returns the answer to a request that is not allowed.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        match self {
            Self::Token(token) => check_token(token, headers),
            Self::Loopback => check_loopback(method, uri, headers),
            Self::Off => Err(Problem::not_found(
                "the API is off: set `server.ops_token`, or let `server.ops_listen` be loopback",
            )),
        }
    }
}

fn check_token(token: &Secret, headers: &HeaderMap) -> Result<(), Problem> {
    if carries(token, headers) {
        return Ok(());
    }
    let detail = "send the configured `ops_token` as `Authorization: Bearer TOKEN`";
    Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
}

/// Returns whether a request carries the token, compared in constant time.
pub(super) fn carries(token: &Secret, headers: &HeaderMap) -> bool {
    let given = single(headers, &header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start_matches(' '))
    });
    // Digests have one length, so that the time says nothing about the token's length either.
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    given.is_some_and(|given| {
        bool::from(digest(given).as_slice().ct_eq(digest(&token.reveal()).as_slice()))
    })
}

fn check_loopback(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let host = single(headers, &header::HOST).filter(|host| is_loopback(host));
    // A request to a proxy names the host a second time.
    if host.is_none() || uri.authority().is_some_and(|named| !is_loopback(named.as_str())) {
        let detail = "without `ops_token` the API answers to a loopback `Host` only, such as \
                      127.0.0.1 or localhost";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if method.is_safe() || is_json(headers) {
        return Ok(());
    }
    let detail = "send `Content-Type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Returns whether a request declares JSON, which a page of another site cannot make a browser do
/// without a preflight request.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    single(headers, &header::CONTENT_TYPE).is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    })
}

/// Returns the value of a header that occurs exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (_, _) => None,
    }
}

/// Returns whether `host[:port]` is loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn status(auth: &Auth, method: &Method, list: &[(&str, &str)]) -> u16 {
        let checked = auth.check(method, &Uri::from_static("/api/v1/status"), &headers(list));
        checked.map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn the_token_is_needed_whole_and_once() {
        let token = Secret::fixed("T", "a-token").unwrap();
        let auth = Auth::new(Some(token), "127.0.0.1:9090".parse().unwrap());
        let ask = |list: &[(&str, &str)]| status(&auth, &Method::GET, list);
        assert_eq!(ask(&[("authorization", "Bearer a-token")]), 200);
        assert_eq!(ask(&[("authorization", "bearer  a-token")]), 200);
        assert_eq!(ask(&[("authorization", "Bearer a-token"), ("host", "evil.example")]), 200);
        for wrong in ["Bearer a-toke", "Bearer a-token2", "Basic a-token", "a-token", "Bearer "] {
            assert_eq!(ask(&[("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(ask(&[]), 401);
        let twice = [("authorization", "Bearer a-token"), ("authorization", "Bearer a-token")];
        assert_eq!(ask(&twice), 401);
    }

    #[test]
    fn without_a_token_only_a_loopback_host_is_answered() {
        let auth = Auth::new(None, "[::1]:9090".parse().unwrap());
        let ask = |host: &str| status(&auth, &Method::GET, &[("host", host)]);
        for good in ["127.0.0.1:9090", "127.0.0.1", "localhost:9090", "LOCALHOST", "[::1]:9090"] {
            assert_eq!(ask(good), 200, "{good}");
        }
        for bad in [
            "relay.example:9090",
            "10.0.0.1",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a@127.0.0.1",
            "[::2]",
            "",
            "127.0.0.1/",
        ] {
            assert_eq!(ask(bad), 403, "{bad}");
        }
        assert_eq!(status(&auth, &Method::GET, &[]), 403);
        let twice = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(status(&auth, &Method::GET, &twice), 403);
        let named = auth.check(
            &Method::GET,
            &Uri::from_static("http://evil.example/api/v1/status"),
            &headers(&[("host", "localhost")]),
        );
        assert_eq!(named.unwrap_err().status, 403);
    }

    #[test]
    fn without_a_token_a_write_must_be_json() {
        let auth = Auth::new(None, "127.0.0.1:9090".parse().unwrap());
        let host = ("host", "localhost");
        let ask = |kind: &str| status(&auth, &Method::POST, &[host, ("content-type", kind)]);
        assert_eq!(ask("application/json"), 200);
        assert_eq!(ask("Application/JSON; charset=utf-8"), 200);
        for form in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""] {
            assert_eq!(ask(form), 415, "{form}");
        }
        assert_eq!(status(&auth, &Method::POST, &[host]), 415);
    }

    #[test]
    fn on_any_other_address_there_is_no_api_without_a_token() {
        let auth = Auth::new(None, "0.0.0.0:9090".parse().unwrap());
        assert_eq!(status(&auth, &Method::GET, &[("host", "localhost")]), 404);
    }
}
