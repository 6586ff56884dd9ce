//! The one way out for requests: every client is built here, with the same TLS, the same limits,
//! and the same refusal of link-local and metadata addresses.
//!
//! Clients never follow a redirect, never take a proxy from the environment, and keep no cookies.
//! The time limit of a whole request belongs to the caller, who knows the length of an attempt.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use url::Host;

mod lookup;

/// Value of `User-Agent` in every request.
pub const USER_AGENT: &str = concat!("slack-soar-relay/", env!("CARGO_PKG_VERSION"));

/// Time after which an idle connection is closed: below the 60 s after which many load balancers
/// drop one silently.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Settings of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Time limit for name look-up, TCP, proxy and TLS together.
    pub connect_timeout: Duration,
    /// Proxy, `http://[user:password@]host:port`; it sees the host of an https request, not the
    /// content.
    pub proxy: Option<String>,
    /// File with PEM certificates that are trusted beside the public roots.
    pub ca_file: Option<PathBuf>,
    /// File with the PEM certificate chain to show to the server; needs `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// File with the PEM private key of the client certificate.
    pub client_key_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            proxy: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("connect_timeout", &self.connect_timeout)
            .field("proxy", &self.proxy.as_ref().map(|_may_hold_a_password| "***"))
            .field("ca_file", &self.ca_file)
            .field("client_cert_file", &self.client_cert_file)
            .field("client_key_file", &self.client_key_file)
            .finish()
    }
}

/// Reason why a client cannot be built. Names files, never their contents.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A PEM file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// A file does not contain a usable certificate or private key.
    #[error("{} holds no usable {what} in PEM form", path.display())]
    Pem {
        /// Path of the file.
        path: PathBuf,
        /// The missing part: `certificate` or `private key`.
        what: &'static str,
    },
    /// Only one of certificate and key is given.
    #[error("client_cert_file and client_key_file belong together: give both or neither")]
    HalfIdentity,
    /// The proxy is not an `http://` or `https://` URL, or its address is refused. Not shown, since
    /// the URL may contain a password.
    #[error("the proxy is not a usable http:// or https:// URL")]
    Proxy,
    /// Certificate and key do not match, or TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The HTTP library refused the settings.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Error of a request to an address that hands out a cloud machine's credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a link-local or metadata address, which is never contacted")]
pub struct RefusedAddress(IpAddr);

/// Builds a client.
///
/// # Errors
/// Returns [`ClientError`] if a file or the proxy is not usable.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn build(settings: &Settings) -> Result<reqwest::Client, ClientError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings)?)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .dns_resolver(Arc::new(GuardedResolver))
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .user_agent(USER_AGENT);
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(proxy_from(proxy)?);
    }
    builder.build().map_err(ClientError::Client)
}

/// Refuses a URL whose host is written as a link-local or metadata address. A client asks its
/// resolver only about names, so whoever takes a URL from outside asks here as well.
///
/// # Errors
/// [`RefusedAddress`].
///
/// ```
/// use slack_soar_relay::http_client::check_host;
/// assert!(check_host(&"http://169.254.169.254/latest".parse().unwrap()).is_err());
/// assert!(check_host(&"http://[::ffff:a9fe:a9fe]/".parse().unwrap()).is_err());
/// assert!(check_host(&"https://10.0.0.7/".parse().unwrap()).is_ok());
/// ```
pub fn check_host(url: &Url) -> Result<(), RefusedAddress> {
    match url.host() {
        Some(Host::Ipv4(address)) => check_address(address.into()),
        Some(Host::Ipv6(address)) => check_address(address.into()),
        // Of a scheme that the web does not know, an IPv4 address is read as a name.
        Some(Host::Domain(name)) => {
            name.parse().map_or(Ok(()), |address: Ipv4Addr| check_address(address.into()))
        }
        None => Ok(()),
    }
}

/// Returns whether a request failed since the server's certificate is not good.
pub fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.map_or(error.downcast_ref(), |inner| inner.downcast_ref());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Returns the addresses of a host, after a check of each: a public name may point anywhere. Ends
/// within five seconds, whatever the resolver does, and never waits for another name.
///
/// # Errors
/// Returns the error of the system's resolver, a time-out, or [`RefusedAddress`].
pub async fn resolve(
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let found = lookup::look_up(host, port).await?;
    for address in &found {
        check_address(address.ip())?;
    }
    Ok(found)
}

fn check_address(address: IpAddr) -> Result<(), RefusedAddress> {
    let refused = match address {
        IpAddr::V4(v4) => refused_v4(v4),
        IpAddr::V6(v6) => refused_v6(v6),
    };
    if refused { Err(RefusedAddress(address)) } else { Ok(()) }
}

/// Returns whether an IPv4 address is link-local (169.254.0.0/16, where nearly all metadata
/// services are) or 100.100.100.200, Alibaba Cloud's metadata service.
fn refused_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200)
}

/// `fd00:ec2::254` and `fd20:ce::254` are the metadata services of AWS and Google Cloud. An IPv4
/// address may hide behind `::ffff:0:0/96` (mapped), `::/96` (compatible) and `64:ff9b::/96`
/// (NAT64).
fn refused_v6(address: Ipv6Addr) -> bool {
    let metadata = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    let nat64 = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    };
    address.is_unicast_link_local()
        || metadata.contains(&address)
        || address.to_ipv4().or(nat64).is_some_and(refused_v4)
}

/// The system's resolver, with a check of its answers.
struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses: Addrs = Box::new(resolve(name.as_str(), 0).await?.into_iter());
            Ok(addresses)
        })
    }
}

fn proxy_from(text: &str) -> Result<reqwest::Proxy, ClientError> {
    let url = Url::parse(text).map_err(|_may_hold_a_password| ClientError::Proxy)?;
    if !matches!(url.scheme(), "http" | "https") || check_host(&url).is_err() {
        return Err(ClientError::Proxy);
    }
    reqwest::Proxy::all(url).map_err(|_may_hold_a_password| ClientError::Proxy)
}

/// Returns the TLS settings, also for servers that do not speak HTTP.
///
/// # Errors
/// Returns [`ClientError`] if a file is not usable.
pub fn tls(settings: &Settings) -> Result<ClientConfig, ClientError> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(path) = &settings.ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|_not_a_root| ClientError::Pem {
                path: path.clone(),
                what: "certificate",
            })?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&settings.client_cert_file, &settings.client_key_file) {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some(chain), Some(key)) => {
            Ok(config.with_client_auth_cert(certificates(chain)?, private_key(key)?)?)
        }
        (Some(_), None) | (None, Some(_)) => Err(ClientError::HalfIdentity),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(ClientError::Pem { path: path.to_owned(), what: "certificate" }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ClientError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_not_pem| ClientError::Pem { path: path.to_owned(), what: "private key" })
}

fn read(path: &Path) -> Result<Vec<u8>, ClientError> {
    fs::read(path).map_err(|source| ClientError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_spelling() {
        for url in [
            "http://169.254.169.254/",
            "http://169.254.0.1:8080/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[febf::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://100.100.100.200/",
            "smtp://169.254.169.254:25",
            "smtps://[::ffff:169.254.169.254]",
        ] {
            assert!(check_host(&url.parse().unwrap()).is_err(), "{url}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_are_allowed() {
        for url in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://10.1.2.3/",
            "http://192.168.0.1/",
            "http://[fd12::1]/",
            "http://100.100.100.201/",
            "https://soar.example.com/",
        ] {
            assert!(check_host(&url.parse().unwrap()).is_ok(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_is_refused_when_it_resolves_to_a_refused_address() {
        let resolved = GuardedResolver.resolve("169.254.169.254".parse().unwrap()).await;
        assert!(resolved.err().is_some_and(|error| error.is::<RefusedAddress>()));
        let resolved = GuardedResolver.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.unwrap().count() > 0);
    }

    #[test]
    fn a_client_certificate_without_its_key_is_refused() {
        let settings =
            Settings { client_cert_file: Some("cert.pem".into()), ..Settings::default() };
        assert!(matches!(build(&settings), Err(ClientError::HalfIdentity)));
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let settings = Settings { ca_file: Some(path.clone()), ..Settings::default() };
        let missing = build(&settings).unwrap_err();
        assert!(missing.to_string().contains("ca.pem"), "{missing}");
        fs::write(&path, "not a certificate").unwrap();
        let empty = build(&settings).unwrap_err();
        assert!(empty.to_string().contains("ca.pem"), "{empty}");
    }

    #[test]
    fn a_bad_proxy_is_refused_without_showing_its_password() {
        for proxy in [
            "socks5://u:hunter2@proxy:1080",
            "proxy:3128",
            "http://u:hunter2@169.254.169.254:80",
            "http://u:hunter2@",
        ] {
            let settings = Settings { proxy: Some(proxy.to_owned()), ..Settings::default() };
            let error = build(&settings).unwrap_err();
            assert!(matches!(error, ClientError::Proxy), "{proxy}");
            let shown = format!("{error:?} {error} {settings:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
