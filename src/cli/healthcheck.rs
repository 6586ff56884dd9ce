//! `healthcheck`: asks the running relay whether it is ready, for an image without a shell or curl.
//!
//! Docker and compose call it; Kubernetes asks `/readyz` itself.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;

use super::{Common, say, serve};
use crate::http_client;

/// Longer than a probe of the store may take, and shorter than a supervisor waits for this command.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask for health.
#[derive(Args, Debug)]
pub struct Healthcheck {
    /// What to ask [default: `/readyz` at `ops_listen` of the configuration].
    #[arg(value_name = "URL")]
    url: Option<String>,
}

impl Healthcheck {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let url = match self.url {
            Some(url) => url,
            // A relay that runs is not unhealthy because its file has a mistake by now.
            None => ready_url(common.salvage().config.server.ops_listen),
        };
        let (status, text) = serve::runtime()?.block_on(ask(&url))?;
        say(text.trim_end());
        Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A relay that listens on every address is asked on the loopback one.
fn ready_url(mut listens_on: SocketAddr) -> String {
    if listens_on.ip().is_unspecified() {
        let is_v4 = listens_on.is_ipv4();
        listens_on.set_ip(if is_v4 {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("http://{listens_on}/readyz")
}

async fn ask(url: &str) -> anyhow::Result<(u16, String)> {
    let client = http_client::build(&http_client::Settings::default())?;
    let request = client.get(url).timeout(PATIENCE).send();
    let answer = request.await.map_err(|_shown_by_its_url| anyhow!("{url} does not answer"))?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_listens_everywhere_is_asked_on_this_machine() {
        let url = |address: &str| ready_url(address.parse().unwrap());
        assert_eq!(url("0.0.0.0:9090"), "http://127.0.0.1:9090/readyz");
        assert_eq!(url("[::]:9191"), "http://[::1]:9191/readyz");
        assert_eq!(url("10.0.0.7:9090"), "http://10.0.0.7:9090/readyz");
    }
}
