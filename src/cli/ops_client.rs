//! Client of the ops API of a running relay, for the commands for operators.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Url,
    header::{self, HeaderValue},
};
use serde::de::DeserializeOwned;

use super::{environment::environment, options::Common};
use crate::{
    config::Salvaged,
    http_client,
    logging::chain,
    ops::{Problem, api::OPERATOR},
    secret::{Form, Secret},
};

/// Time limit for one answer. Only a change of very many alerts takes longer than a moment.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Environment variable with the token.
const TOKEN_VARIABLE: &str = "RELAY_OPS_TOKEN";

/// Characters to encode in a segment of a path.
const PATH_SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':');

/// Options that select the relay.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// URL of the relay's ops listener, such as `http://127.0.0.1:9090` [default: `ops_listen` of the
    /// configuration].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the `ops_token` [default: the environment variable `RELAY_OPS_TOKEN`, otherwise
    /// `ops_token` of the configuration].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Client of one relay.
#[derive(Debug)]
pub(super) struct OpsClient {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Target {
    /// Returns the client of the selected relay. Reads the configuration only without `--server`.
    pub(super) fn client(&self, common: &Common) -> anyhow::Result<OpsClient> {
        if let Some(server) = &self.server {
            return self.client_of(server, None);
        }
        self.client_by(common, &common.salvage())
    }

    /// Returns the client of the selected relay; by default, the relay with this configuration.
    pub(super) fn client_by(
        &self,
        common: &Common,
        salvaged: &Salvaged,
    ) -> anyhow::Result<OpsClient> {
        let server = &salvaged.config.server;
        let url = match &self.server {
            Some(server) => server.clone(),
            // Mistakes elsewhere in the file do not matter: an operator needs these commands most
            // while the configuration has some.
            None if salvaged.has_read("/server/ops_listen") => {
                format!("http://{}", reachable(server.ops_listen, "ops_listen", "--server")?)
            }
            None => {
                let error = common.unusable(salvaged, "/server/ops_listen");
                return Err(
                    error.context("without --server, `ops_listen` of the configuration is needed")
                );
            }
        };
        self.client_of(&url, server.ops_token.clone())
    }

    fn client_of(&self, server: &str, configured: Option<Secret>) -> anyhow::Result<OpsClient> {
        let token = match (&self.token_file, environment(TOKEN_VARIABLE)) {
            (Some(path), _) => Some(Secret::file(path, Form::Word)?),
            (None, Some(value)) => Some(Secret::variable(TOKEN_VARIABLE, &value, Form::Word)?),
            (None, None) => configured,
        };
        let base = Url::parse(server)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()))
            .with_context(|| format!("--server: `{server}` is not an http:// or https:// URL"))?;
        let http = http_client::build(&http_client::Settings::default())?;
        Ok(OpsClient { http, base, token })
    }
}

/// Returns the address at which a listener on this machine can be reached. `key` and `option` are
/// named in the error.
pub(super) fn reachable(listen: SocketAddr, key: &str, option: &str) -> anyhow::Result<SocketAddr> {
    if listen.port() == 0 {
        return Err(anyhow!("`{key}` does not have a fixed port: give {option}"));
    }
    let mut address = listen;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { ipv6_loopback() };
        address.set_ip(loopback);
    }
    Ok(address)
}

fn ipv6_loopback() -> std::net::IpAddr {
    std::net::Ipv6Addr::LOCALHOST.into()
}

/// Nothing listens at the address of the relay.
#[derive(Debug, thiserror::Error)]
#[error("no relay answers at {0}: is it running? (use --server for another)")]
pub(super) struct NoRelay(String);

/// An error answer, with its status.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    pub(super) status: u16,
    /// `true` if the answer is a problem document, as relays send.
    pub(super) is_from_relay: bool,
    detail: String,
}

impl OpsClient {
    /// Requests `GET /api/v1/{parts}?{query}`, and deserializes the answer.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        parsed(&self.get_text(parts, query).await?)
    }

    /// Requests `GET /api/v1/{parts}?{query}`, and returns the text of the answer.
    pub(super) async fn get_text(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<String> {
        self.send(Method::GET, parts, query).await
    }

    /// Requests `POST /api/v1/{parts}?{query}`, and deserializes the answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        parsed(&self.send(Method::POST, parts, query).await?)
    }

    async fn send(
        &self,
        method: Method,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<String> {
        let mut url = self.base.clone();
        let encoded: Vec<String> =
            parts.iter().map(|part| utf8_percent_encode(part, PATH_SEGMENT).to_string()).collect();
        let path = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{path}/api/v1/{}", encoded.join("/")));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .http
            .request(method, url)
            .timeout(TIMEOUT)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        // Named in the relay's log and in the history of the alert.
        let user = environment("USER").or_else(|| environment("LOGNAME"));
        if let Some(user) = user.and_then(|user| HeaderValue::from_str(&user).ok()) {
            request = request.header(OPERATOR, user);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        Err(refusal(status.as_u16(), &text).into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let base = self.base.origin().ascii_serialization();
        if error.is_connect() {
            return NoRelay(base).into();
        }
        anyhow!("the relay at {base} does not answer: {}", chain(error))
    }
}

fn refusal(status: u16, text: &str) -> Refused {
    let problem = serde_json::from_str::<Problem>(text);
    let is_from_relay = problem.is_ok();
    let detail = match problem {
        Ok(problem) if status == 401 => {
            format!("{} (use --token-file or {TOKEN_VARIABLE})", problem.detail)
        }
        Ok(problem) => problem.detail,
        Err(_not_a_problem) => {
            format!("status {status}, which is not the answer of a relay's ops listener")
        }
    };
    Refused { status, is_from_relay, detail }
}

fn parsed<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).context("the answer does not come from a relay of this version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_listens_on_all_addresses_is_reached_on_loopback() {
        let reach = |text: &str| {
            let address = reachable(text.parse().unwrap(), "ops_listen", "--server");
            address.map_or_else(|error| error.to_string(), |address| address.to_string())
        };
        assert_eq!(reach("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reach("[::]:9090"), "[::1]:9090");
        assert_eq!(reach("10.0.0.7:9090"), "10.0.0.7:9090");
        assert_eq!(reach("127.0.0.1:0"), "`ops_listen` does not have a fixed port: give --server");
    }
}
