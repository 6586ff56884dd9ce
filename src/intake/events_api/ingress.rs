//! State that a request meets before its signature is verified, and how it is turned away.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    body::{Body, HttpBody},
    http::{Method, StatusCode, request},
};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::{
    endpoints::{Endpoint, Endpoints, ReceivingApp, SHORT_PATH},
    headers::SignatureHeaders,
    limits::Limits,
    refusal::{Refusal, Rejection},
    warnings::Warnings,
};
use crate::{ground::Ground, ids::AppName, intake::fate::Fate, slack::signature::SignatureError};

/// Time for a body to arrive. A later one uses up the 3 s that Slack waits.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(2);

/// Bytes of a refused body that are read and thrown away.
const DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// State that a request meets before its signature is verified.
#[derive(Debug)]
pub(super) struct Ingress {
    /// Endpoints of the configuration in use. A request ends with the one it began with.
    pub(super) endpoints: ArcSwap<Endpoints>,
    pub(super) limits: Limits,
    pub(super) warnings: Warnings,
    pub(super) ground: Ground,
}

impl Ingress {
    /// Returns the endpoint at a path.
    pub(super) fn endpoint(&self, path: &str) -> Option<Arc<Endpoint>> {
        self.endpoints.load().find(path).map(Arc::clone)
    }

    /// Turns a request away that is not for a configured app.
    pub(super) fn reject_unknown(&self, head: &request::Parts) -> Rejection {
        let path = head.uri.path();
        // Only what may be Slack's is counted, not every path that scanners try.
        let may_be_slacks = || {
            path.starts_with(SHORT_PATH)
                || SignatureHeaders::find(&head.headers)
                    .and_then(|headers| headers.claim(self.ground.clock.now()))
                    .is_ok()
        };
        if head.method == Method::POST && may_be_slacks() {
            self.endpoints.load().count_unclaimed(Fate::UnknownApp);
            self.warnings.unknown_path(path, self.ground.clock.instant());
        }
        Rejection { status: StatusCode::NOT_FOUND, closes_connection: false }
    }

    /// Turns an unverified request away.
    pub(super) fn reject(&self, refusal: &Refusal, endpoint: &Endpoint, body: Body) -> Rejection {
        // Strangers can cause this at will, so it must not fill the log.
        tracing::debug!(path = endpoint.path(), %refusal, "a request was refused");
        endpoint.count_refused(refusal.fate());
        match refusal {
            Refusal::Crowded => self.warnings.crowded(endpoint.path(), self.ground.clock.instant()),
            Refusal::Signature(error) => self.note_unsigned(*error, endpoint),
            Refusal::Headers | Refusal::TooLarge | Refusal::Slow => {}
        }
        let mut closes_connection = false;
        if !body.is_end_stream() {
            closes_connection = matches!(refusal, Refusal::Crowded | Refusal::Slow);
            self.ground.shutdown.spawn(discard(body));
        }
        Rejection { status: refusal.status(), closes_connection }
    }

    /// Notes a request whose signature is not valid, and warns if none of Slack's is.
    fn note_unsigned(&self, error: SignatureError, endpoint: &Endpoint) {
        for app in endpoint.apps() {
            // Only a signature in due form may be Slack's, made with another secret.
            if error != SignatureError::Wrong {
                app.signing.note_stranger();
                continue;
            }
            let times =
                app.signing.note_rejected(self.ground.clock.now(), self.ground.clock.uptime());
            if let Some(times) = times {
                warn_rejected(&app.name, endpoint.path(), times);
            }
        }
    }

    /// Notes a request whose signature is valid, and says so if that is news.
    pub(super) fn note_signed(&self, app: &ReceivingApp) {
        if let Some(before) = app.signing.note_verified(self.ground.clock.now()) {
            let app = &app.name;
            tracing::info!(
                %app,
                before,
                "requests to app {app} are signed with its secret ({before} before were not)"
            );
        }
    }
}

fn warn_rejected(app: &AppName, path: &str, times: u64) {
    tracing::warn!(
        %app,
        path,
        times,
        "{times} requests were signed with another secret than `signing_secret` of app {app}, and \
         none with that: events are refused with 401. Compare it with the app's settings at Slack: \
         Basic Information, App Credentials, Signing Secret"
    );
}

/// Reads a refused body on for a moment. Most clients send to the end before they look for an
/// answer, and would find the connection reset instead.
async fn discard(mut body: Body) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await
            && bytes <= DISCARDED_BYTES
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A client that sends more or slower than this is not waited for.
    drop(tokio::time::timeout(BODY_DEADLINE, rest).await);
}
