//! Answers to Slack: a number, and nothing about why.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};

pub(super) fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}

pub(super) fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Slack's proof that the URL is ours: <https://docs.slack.dev/reference/events/url_verification>.
pub(super) fn echo(challenge: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "challenge": challenge }).to_string();
    let mut response = Response::new(Full::from(body));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// hyper reads the next request's headers into the map that held the last answer's.
pub(super) fn reuse(mut headers: HeaderMap, response: &mut Response<Full<Bytes>>) {
    if response.headers().is_empty() {
        headers.clear();
        *response.headers_mut() = headers;
    }
}
