//! The operator behind a request, and the record of what an operator did: one line in the log and
//! one entry in the store's journal.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{header::USER_AGENT, request},
};

use super::{Api, OPERATOR};
use crate::{http_server::Peer, logging::chain, ops::Problem, store::OperatorAction};

/// Sender of a request: address, kind of proof, and the name that the sender gives.
pub(super) struct Operator(String);

/// Characters of the sender's name that are kept.
const NAME_CHARS: usize = 64;

impl FromRequestParts<Arc<Api>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut request::Parts,
        api: &Arc<Api>,
    ) -> Result<Self, Problem> {
        let address = parts.extensions.get::<Peer>().map(|peer| peer.address().to_string());
        let address = address.unwrap_or_else(|| "unknown".to_owned());
        let proof = api.auth.proof();
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let name = header(OPERATOR).or_else(|| header(USER_AGENT)).unwrap_or_default();
        let name: String = name.chars().take(NAME_CHARS).collect();
        let comma = if name.is_empty() { "" } else { ", " };
        Ok(Self(format!("{address} ({proof}{comma}{name})")))
    }
}

impl Operator {
    pub(super) fn deed(&self, action: &'static str, selection: String) -> OperatorAction {
        OperatorAction { who: self.0.clone(), action, selection }
    }
}

/// Logs an action: who did what to which, and how much changed.
pub(super) fn log(deed: &OperatorAction, changed: u64) {
    let OperatorAction { who, action, selection } = deed;
    tracing::info!(
        audit = true,
        who,
        action,
        selection,
        changed,
        "operator at {who}: {action} {selection}, {changed} changed"
    );
}

/// Logs an action that does not change the store, and keeps the action in the journal. The action
/// is done, so a journal that cannot be written is logged and is not an error.
pub(super) async fn note(api: &Api, deed: OperatorAction, changed: u64) {
    log(&deed, changed);
    if let Err(error) = api.ground.store.note(deed, changed).await {
        tracing::error!(
            error = chain(&error),
            "could not record an operator's action in the store"
        );
    }
}
