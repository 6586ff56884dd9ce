//! The running relay's ops API, as the commands for operators call it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, Url,
    header::{self, HeaderValue},
};
use serde::de::DeserializeOwned;

use super::{Common, environment};
use crate::{
    config::Salvaged,
    http_client,
    logging::chain,
    ops::{Problem, api::OPERATOR},
    secret::{Form, Secret},
};

/// For one answer. Only a change of very many alerts takes more than a moment.
const PATIENCE: Duration = Duration::from_secs(600);

/// What names the token in the environment.
const TOKEN_VARIABLE: &str = "RELAY_OPS_TOKEN";

/// What stays as it is in a part of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b':');

/// Which relay is meant.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// The relay's ops listener, such as `http://127.0.0.1:9090` [default: `ops_listen` of the
    /// configuration].
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A file with the `ops_token` [default: the variable `RELAY_OPS_TOKEN`, else the `ops_token`
    /// of the configuration].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A client of one relay.
#[derive(Debug)]
pub(super) struct OpsClient {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

impl Target {
    /// The client. The configuration is only read if the command line does not say everything.
    pub(super) fn client(&self, common: &Common) -> anyhow::Result<OpsClient> {
        if let Some(server) = &self.server {
            return self.client_of(server, None);
        }
        self.client_by(common, &common.salvage())
    }

    /// The client for the relay with that configuration, unless the command line names another.
    pub(super) fn client_by(
        &self,
        common: &Common,
        salvaged: &Salvaged,
    ) -> anyhow::Result<OpsClient> {
        let server = &salvaged.config.server;
        let url = match &self.server {
            Some(server) => server.clone(),
            None if salvaged.has_read("/server/ops_listen") => {
                format!("http://{}", reachable(server.ops_listen, "ops_listen", "--server")?)
            }
            None => {
                let error = common.unusable(salvaged, "/server/ops_listen");
                return Err(
                    error.context("without --server the relay is found by its `ops_listen`")
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
            .with_context(|| format!("--server: `{server}` is no http:// or https:// URL"))?;
        let http = http_client::build(&http_client::Settings::default())?;
        Ok(OpsClient { http, base, token })
    }
}

/// Where to reach somebody on this machine who listens there.
pub(super) fn reachable(
    listens_on: SocketAddr,
    key: &str,
    option: &str,
) -> anyhow::Result<SocketAddr> {
    if listens_on.port() == 0 {
        return Err(anyhow!("`{key}` has no fixed port: give {option}"));
    }
    let mut address = listens_on;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { ipv6_loopback() };
        address.set_ip(loopback);
    }
    Ok(address)
}

fn ipv6_loopback() -> std::net::IpAddr {
    std::net::Ipv6Addr::LOCALHOST.into()
}

/// An answer that is a problem document, with its status.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    pub(super) status: u16,
    detail: String,
}

impl OpsClient {
    /// `GET /api/v1/{parts}?{query}`
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        parsed(&self.get_text(parts, query).await?)
    }

    /// As [`OpsClient::get`], exactly as the relay wrote it.
    pub(super) async fn get_text(
        &self,
        parts: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<String> {
        self.send(Method::GET, parts, query).await
    }

    /// `POST /api/v1/{parts}?{query}`
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
            parts.iter().map(|part| utf8_percent_encode(part, PLAIN).to_string()).collect();
        let path = self.base.path().trim_end_matches('/');
        url.set_path(&format!("{path}/api/v1/{}", encoded.join("/")));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .http
            .request(method, url)
            .timeout(PATIENCE)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
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
            return anyhow!("no relay answers at {base}: is it running? (--server names another)");
        }
        anyhow!("the relay at {base} does not answer: {}", chain(error))
    }
}

fn refusal(status: u16, text: &str) -> Refused {
    let detail = match serde_json::from_str::<Problem>(text) {
        Ok(problem) if status == 401 => {
            format!("{} (here: --token-file, or {TOKEN_VARIABLE})", problem.detail)
        }
        Ok(problem) => problem.detail,
        Err(_no_problem) => format!("status {status}, and not from a relay's ops listener"),
    };
    Refused { status, detail }
}

fn parsed<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).context("the answer is not one of this version's relay")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_listens_everywhere_is_reached_on_this_machine() {
        let reach = |text: &str| {
            let address = reachable(text.parse().unwrap(), "ops_listen", "--server");
            address.map_or_else(|error| error.to_string(), |address| address.to_string())
        };
        assert_eq!(reach("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reach("[::]:9090"), "[::1]:9090");
        assert_eq!(reach("10.0.0.7:9090"), "10.0.0.7:9090");
        assert_eq!(reach("127.0.0.1:0"), "`ops_listen` has no fixed port: give --server");
    }
}
