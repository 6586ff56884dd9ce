//! Store of the relay under test: a file, or a throw-away PostgreSQL.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::server::{Core, on_core};

/// Store of one relay.
pub(crate) enum Store {
    Sqlite,
    /// The URL of a database.
    Postgres(String),
}

impl Store {
    /// YAML of the store for the configuration.
    pub(crate) fn yaml(&self) -> &'static str {
        match self {
            Self::Sqlite => "{sqlite: {max_size: 8GiB}}",
            Self::Postgres(_) => "{postgres: {url: {env: DATABASE_URL}}}",
        }
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Sqlite => "",
            Self::Postgres(url) => url,
        }
    }
}

/// WAL for the files that a server in service has: it uses them again, where a new one would make
/// each of them while it is measured.
const WAL: [&str; 2] = [
    "SELECT count(pg_logical_emit_message(false, 'bench', repeat('x', 1000000)))
     FROM generate_series(1, 300)",
    "CHECKPOINT",
];

/// A server; it ends with this value.
pub(crate) struct Postgres {
    folder: PathBuf,
    url: String,
    databases: AtomicU32,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(script(Core::Load, &format!("postgres_stop {}/pg", self.folder.display())));
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let start = format!(
            "chmod 755 {0} && postgres_start {0}/pg && echo $postgres_url",
            folder.display()
        );
        let url = script(Core::Servers, &start).trim().to_owned();
        assert!(url.starts_with("postgresql://"), "{url}");
        for statement in WAL {
            sql(&url, statement);
        }
        Self { folder, url, databases: AtomicU32::new(0) }
    }

    /// An empty database.
    pub(crate) fn database(&self) -> Store {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        sql(&self.url, &format!("CREATE DATABASE bench{number}"));
        sql(&self.url, "CHECKPOINT");
        let server = self.url.strip_suffix("/postgres").unwrap();
        Store::Postgres(format!("{server}/bench{number}"))
    }
}

/// Runs SQL in the database of that URL.
pub(crate) fn sql(url: &str, sql: &str) {
    script(Core::Load, &format!("psql -qX -v ON_ERROR_STOP=1 -c \"{sql}\" {url}"));
}

/// Runs something with the functions of the tests' script; returns what it prints.
fn script(core: Core, text: &str) -> String {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/server.sh");
    let text = format!(". {} && {text}", functions.display());
    let output = on_core(core, Path::new("bash")).args(["-c", &text]).output().unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
