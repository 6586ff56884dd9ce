//! `/api/v1`: shows alerts and acts on them. Each request passes [`Auth`] first; errors are problem
//! documents; each action leaves one line in the log.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Query, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Control, Controls, Problem, auth::Auth, health::Health, openapi};
use crate::{clock::Timestamp, ground::Ground, http_server::Peer};

mod actions;
mod alerts;
mod backfill;
mod feed;
mod operator;
mod pause;
mod review;
mod route;
mod status;

/// Longest body that is read. The query or a few words of JSON say everything.
const MAX_BODY_BYTES: usize = 1024;

/// Most requests at once that take long: readers that wait for items, and backfills. More of them
/// would leave no connections for others.
const MAX_LONG_REQUESTS: usize = 64;

/// Path that every route begins with.
const PREFIX: &str = "/api/v1";

/// Header in which a client may name its user. The name is not verified.
pub const OPERATOR: HeaderName = HeaderName::from_static("x-operator");

#[derive(Debug)]
struct Api {
    ground: Ground,
    controls: Controls,
    auth: Auth,
    health: Arc<Health>,
    started_at: Timestamp,
    long_requests: Semaphore,
}

impl Api {
    /// Returns the running parts of the configuration in use.
    fn control(&self) -> Arc<dyn Control> {
        self.controls.current()
    }

    /// Takes one of the places for requests that take long.
    fn long_request(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.long_requests.try_acquire().map_err(|_all_taken| {
            let detail = format!("{MAX_LONG_REQUESTS} requests wait here already; ask again later");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })
    }
}

type Shared = State<Arc<Api>>;

/// Returns the routes of the API.
pub(super) fn router(
    ground: Ground,
    controls: Controls,
    auth: Auth,
    health: Arc<Health>,
) -> Router {
    let started_at = ground.clock.now();
    let long_requests = Semaphore::new(MAX_LONG_REQUESTS);
    let api = Arc::new(Api { ground, controls, auth, health, started_at, long_requests });
    let routes = Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/status", get(status::status))
        .route("/alerts", get(alerts::list))
        .route("/alerts/retry", post(actions::retry_all))
        .route("/alerts/cancel", post(actions::cancel_all))
        .route("/alerts/{id}", get(alerts::show))
        .route("/alerts/{id}/retry", post(actions::retry))
        .route("/alerts/{id}/cancel", post(actions::cancel))
        .route("/near-misses", get(review::near_misses))
        .route("/near-misses/{id}", get(review::near_miss))
        .route("/near-misses/{id}/adopt", post(review::adopt))
        .route("/quarantine", get(review::quarantine))
        .route("/quarantine/{id}", get(review::quarantined))
        .route("/backfill", post(backfill::backfill))
        .route("/destinations/{name}/pause", post(pause::pause))
        .route("/destinations/{name}/resume", post(pause::resume))
        .route("/destinations/{name}/test", post(actions::test))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&api), guard));
    // A feed has a token of its own.
    let feed =
        Router::new().route("/feed", get(feed::read)).method_not_allowed_fallback(wrong_method);
    let all = routes.merge(feed).layer(from_fn(keep_private)).with_state(api);
    Router::new().nest(PREFIX, all)
}

async fn guard(State(api): Shared, request: Request, next: Next) -> Response {
    match api.auth.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => {
            if let Some(peer) = request.extensions().get::<Peer>() {
                peer.mark_verified();
            }
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Forbids caches to keep an answer, and browsers to guess its type.
async fn keep_private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Handles `GET /openapi.json`.
async fn openapi_json(Params(NoQuery {}): Params<NoQuery>) -> Answer<Value> {
    Ok(Json(openapi::document()))
}

async fn nothing_here(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {PREFIX}{}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not for {PREFIX}{}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Parameters of the query. An unknown key is an error: `?stat=dead` must not select everything.
struct Params<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(query))
    }
}

/// Parameters of the query, or the same as a JSON object in the body.
struct Meant<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Meant<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let text = read(body).await;
        if matches!(text.trim_ascii(), b"" | b"{}") {
            let Params(meant) = Params::from_request_parts(&mut parts, state).await?;
            return Ok(Self(meant));
        }
        if parts.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Problem::bad_request("say it in the query or in the body, not in both"));
        }
        let meant = serde_json::from_slice(&text);
        meant.map(Self).map_err(|error| Problem::bad_request(format!("the body: {error}")))
    }
}

async fn read(body: Body) -> Bytes {
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    body.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

/// An empty body: the path and the query say everything.
struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        match read(request.into_body()).await.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            _ => Err(Problem::bad_request(
                "this takes no body: say what is meant in the query, such as ?destination=NAME",
            )),
        }
    }
}

type Answer<T> = Result<Json<T>, Problem>;

/// A query without any parameters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoQuery {}
