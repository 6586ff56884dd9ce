//! Temporary PostgreSQL servers, created by `initdb` for one test. They run as an unprivileged
//! user, since PostgreSQL refuses root.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A server that stops when this value is dropped.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Returns a command that runs as the owner of the server's files.
fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed")
        .map(|entry| entry.unwrap().path())
        .collect();
    versions.sort();
    versions.pop().unwrap().join("bin").join(name)
}

fn succeed(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Creates a folder that the server's user can write to.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        succeed(Command::new("chown").arg("postgres").arg(folder.path()));
    }
    folder
}

/// Returns a port that is free at the moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let cluster = Self { folder: folder(), port: free_port() };
        let arguments = ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", "postgres"];
        succeed(as_owner(&binary("initdb")).arg("-D").arg(cluster.data()).args(arguments));
        cluster.configure("");
        cluster.start();
        cluster
    }

    /// Lets the server offer TLS. Returns the certificate of its authority.
    pub(crate) fn speak_tls(&self) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_params(&params, &key);
        let own = KeyPair::generate().unwrap();
        let named = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = named.signed_by(&own, &issuer).unwrap();
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", own.serialize_pem())]
        {
            let path = self.data().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                succeed(Command::new("chown").arg("postgres").arg(&path));
            }
        }
        self.configure("ssl = on");
        self.control(&["reload"]);
        authority.pem()
    }

    /// Starts a synchronous standby of this server.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self { folder: folder(), port: free_port() };
        let from = format!("host=127.0.0.1 port={} user=postgres", self.port);
        succeed(
            as_owner(&binary("pg_basebackup"))
                .args(["--checkpoint=fast", "-R", "-d", &from, "-D"])
                .arg(standby.data()),
        );
        standby.configure("");
        standby.start();
        self.configure("synchronous_standby_names = '*'");
        self.control(&["reload"]);
        standby
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes the configuration file, with more settings.
    fn configure(&self, more: &str) {
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             max_connections = 200\n{more}\n",
            self.port,
            self.folder.path().display()
        );
        fs::write(self.data().join("postgresql.conf"), settings).unwrap();
    }

    fn control(&self, arguments: &[&str]) {
        let log = self.folder.path().join("server.log");
        succeed(
            as_owner(&binary("pg_ctl"))
                .arg("-D")
                .arg(self.data())
                .arg("-l")
                .arg(log)
                .args(arguments)
                .stdout(Stdio::null()),
        );
    }

    pub(crate) fn start(&self) {
        self.control(&["-w", "start"]);
    }

    /// Stops the server as a power failure would.
    pub(crate) fn stop(&self) {
        if self.data().join("postmaster.pid").exists() {
            self.control(&["-m", "immediate", "-w", "stop"]);
        }
    }

    pub(crate) fn promote(&self) {
        self.control(&["-w", "promote"]);
    }

    pub(crate) fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs SQL. Returns the first column of every row.
    pub(crate) async fn sql(&self, sql: &str) -> Vec<String> {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(connection);
        let rows = client.simple_query(sql).await.unwrap();
        let text = |message: &SimpleQueryMessage| {
            if let SimpleQueryMessage::Row(row) = message {
                row.get(0).map(str::to_owned)
            } else {
                None
            }
        };
        rows.iter().filter_map(text).collect()
    }
}

/// A `PgBouncer` in front of a server, in transaction mode: each transaction may run on another
/// connection.
struct Pooler {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Pooler {
    fn new(cluster: &Cluster) -> Self {
        let (folder, port) = (folder(), free_port());
        let path = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
             pool_mode = transaction\nmax_client_conn = 500\ndefault_pool_size = 8\n\
             server_login_retry = 1\nunix_socket_dir =\n",
            cluster.port
        );
        fs::write(&path, settings).unwrap();
        let mut command = if is_root() {
            // `setpriv` becomes the pooler, so that killing the child kills it.
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.arg("/usr/sbin/pgbouncer");
            command
        } else {
            Command::new("/usr/sbin/pgbouncer")
        };
        let child = command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Self { child, port, _folder: folder }
    }
}

/// A server, by itself or behind a pooler.
pub(crate) struct TestServer {
    // Dropped before the server, which it is connected to.
    pooler: Option<Pooler>,
    pub(crate) cluster: Cluster,
}

impl TestServer {
    pub(crate) fn direct() -> Self {
        Self { pooler: None, cluster: Cluster::new() }
    }

    pub(crate) fn pooled() -> Self {
        let cluster = Cluster::new();
        Self { pooler: Some(Pooler::new(&cluster)), cluster }
    }

    /// Starts a synchronous standby, with a pooler of its own if this server has one.
    pub(crate) fn standby(&self) -> Self {
        let cluster = self.cluster.standby();
        Self { pooler: self.pooler.as_ref().map(|_| Pooler::new(&cluster)), cluster }
    }

    fn port(&self) -> u16 {
        self.pooler.as_ref().map_or(self.cluster.port, |pooler| pooler.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port())
    }

    /// Returns a URL with both hosts; the relay uses the one that accepts writes.
    pub(crate) fn url_with(&self, other: &Self) -> String {
        let (first, second) = (self.port(), other.port());
        format!("postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres")
    }
}
