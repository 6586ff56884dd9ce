//! `healthcheck`: checks whether the running relay is ready, for images without a shell or curl.
//!
//! Meant for Docker and Compose; Kubernetes requests `/readyz` itself.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;

use super::{options::Common, output::say, serve};
use crate::http_client;

/// Longer than the relay's probe of its store, and shorter than Docker's default timeout of 30 s.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Check whether the running relay is ready.
#[derive(Args, Debug)]
pub struct Healthcheck {
    /// URL to request [default: `/readyz` at `ops_listen` of the configuration].
    #[arg(value_name = "URL")]
    url: Option<String>,
}

impl Healthcheck {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let url = match self.url {
            Some(url) => url,
            // A mistake made in the file since the start does not make the relay unhealthy.
            None => ready_url(common.salvage().config.server.ops_listen),
        };
        let (status, text) = serve::runtime()?.block_on(ask(&url))?;
        say(text.trim_end());
        Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Returns the URL of `/readyz`. A relay that listens on all addresses is asked on loopback.
fn ready_url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        let is_v4 = address.is_ipv4();
        address.set_ip(if is_v4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}/readyz")
}

async fn ask(url: &str) -> anyhow::Result<(u16, String)> {
    let client = http_client::build(&http_client::Settings::default())?;
    let request = client.get(url).timeout(TIMEOUT).send();
    let answer = request.await.map_err(|_any| anyhow!("{url} does not answer"))?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_listens_on_all_addresses_is_asked_on_loopback() {
        let url = |address: &str| ready_url(address.parse().unwrap());
        assert_eq!(url("0.0.0.0:9090"), "http://127.0.0.1:9090/readyz");
        assert_eq!(url("[::]:9191"), "http://[::1]:9191/readyz");
        assert_eq!(url("10.0.0.7:9090"), "http://10.0.0.7:9090/readyz");
    }
}
