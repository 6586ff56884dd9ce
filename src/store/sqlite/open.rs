//! Opens the file of a store. Nothing is repaired, replaced or recreated without the operator: a
//! file that is not a sound store is refused, with its name and what to do.

use std::{
    collections::BTreeSet,
    error::Error,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use rusqlite::Connection;

use super::{
    connect::{connect_reader, connect_writer},
    disk,
    error::{OpenError, is_out_of_space},
    files::{Files, Locks, close_to_others},
    paths::{beside, directory},
};

/// The oldest SQLite without the bug that could corrupt a database in WAL mode when two
/// connections raced to reset the log (sqlite.org/wal.html, "The WAL-reset bug").
const OLDEST_SQLITE: i32 = 3_051_003;

/// Application id that marks a SQLite file as a store: "SSR1".
const APPLICATION_ID: i32 = 0x5353_5231;

/// Migrations. Step `n` leads from layout `n` to layout `n + 1`; `user_version` is the layout.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/sqlite-1.sql"), include_str!("../migrations/sqlite-2.sql")];

/// Handles of an open store.
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: [Connection; 2],
    pub(super) files: Files,
    pub(super) locks: Locks,
}

/// Checks, locks, creates or migrates the file, and connects. On a full disk the ballast is removed
/// to make the room that SQLite needs.
pub(super) fn open(path: &Path, max_size_bytes: u64) -> Result<Opened, OpenError> {
    match try_open(path, max_size_bytes) {
        Err(OpenError::Failed { source, .. })
            if is_full_disk(source.as_ref()) && disk::give_up_to_open(path) =>
        {
            try_open(path, max_size_bytes)
        }
        result => result,
    }
}

fn is_full_disk(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let by_sqlite = error.downcast_ref().is_some_and(is_out_of_space);
    let by_system = error.downcast_ref().map(io::Error::kind);
    by_sqlite || by_system == Some(io::ErrorKind::StorageFull)
}

fn try_open(path: &Path, max_size_bytes: u64) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        let version = rusqlite::version();
        return Err(OpenError::failed(
            path,
            format!("SQLite {version} is too old, 3.51.3 is needed"),
        ));
    }
    let directory = directory(path);
    if !directory.is_dir() {
        return Err(OpenError::NoDirectory(directory.to_owned()));
    }
    refuse_network(path, directory)?;
    let mut locks = Locks::take(path)?;
    let is_new = !check_file(path)?;
    locks.take_database(path)?;
    if !is_new {
        // A writer would change a file that is not in WAL mode, so a reader checks first.
        let look = connect_reader(path).map_err(|source| OpenError::engine(path, source))?;
        layout(path, &look)?;
        check_length(path, &look)?;
    }
    close_to_others(path);
    let writer = connect_writer(path, max_size_bytes, is_new)
        .map_err(|source| OpenError::engine(path, source))?;
    prepare_schema(path, &writer)?;
    let reader = || {
        let reader = connect_reader(path)?;
        // SQLite opens the log by its name at the first read. Later the name may be gone.
        reader.query_row("SELECT count(*) FROM sqlite_schema", (), |_count| Ok(()))?;
        Ok(reader)
    };
    let reader = || reader().map_err(|source| OpenError::engine(path, source));
    let readers = [reader()?, reader()?];
    let files = Files::of(path).map_err(|source| OpenError::failed(path, source))?;
    Ok(Opened { writer, readers, files, locks })
}

/// Opens a read-only connection without the lock, or returns `None` if there is no store.
pub(super) fn look(path: &Path) -> Result<Option<Connection>, OpenError> {
    if !check_file(path)? {
        return Ok(None);
    }
    let db = connect_reader(path).map_err(|source| OpenError::engine(path, source))?;
    layout(path, &db)?;
    Ok(Some(db))
}

/// Opens a read-only connection without the lock to a store that must exist.
pub(super) fn to_read(path: &Path) -> Result<Connection, OpenError> {
    look(path)?.ok_or_else(|| OpenError::failed(path, "there is no store yet"))
}

fn refuse_network(path: &Path, directory: &Path) -> Result<(), OpenError> {
    let stat = rustix::fs::statfs(directory)
        .map_err(|errno| OpenError::failed(path, io::Error::from(errno)))?;
    match network_file_system(stat.f_type & 0xFFFF_FFFF) {
        Some(kind) => Err(OpenError::NotLocal { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Returns the name of a file system on which shared memory or locks do not work between machines,
/// by its number in statfs(2) of Linux.
fn network_file_system(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B | 0xFE53_4D42 => "SMB",
        0xFF53_4D42 => "CIFS",
        0x0102_1997 => "9P",
        0x6573_5546 => "FUSE (sshfs and the like)",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x7461_636F => "OCFS2",
        0x0116_1970 => "GFS2",
        0x1983_0326 => "BeeGFS",
        _ => return None,
    })
}

/// Returns `true` if the file is a SQLite database, and `false` if it is missing or empty. A log
/// beside a missing or empty file is an error, since there was a store.
fn check_file(path: &Path) -> Result<bool, OpenError> {
    if length(path) == 0 {
        return if length(&beside(path, "-wal")) == 0 {
            Ok(false)
        } else {
            Err(OpenError::damaged(path, "the file is missing or empty, but its log (-wal) is not"))
        };
    }
    let mut header = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) if header == *b"SQLite format 3\0" => Ok(true),
        Ok(()) => Err(OpenError::damaged(path, "it is not a SQLite database")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(OpenError::damaged(path, "it is not a SQLite database"))
        }
        Err(error) => Err(OpenError::failed(path, error)),
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Checks that the file has all its pages, since SQLite notices a missing end only when it reads
/// there. Pages may also be in the log only.
fn check_length(path: &Path, db: &Connection) -> Result<(), OpenError> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let whole: u64 = db
        .query_row(sql, (), |row| row.get(0))
        .map_err(|source| OpenError::engine(path, source))?;
    if length(path) < whole && length(&beside(path, "-wal")) == 0 {
        return Err(OpenError::damaged(path, "its end is missing"));
    }
    Ok(())
}

/// Returns the layout of the file, 0 if it is empty. Other files and newer layouts are errors.
fn layout(path: &Path, db: &Connection) -> Result<i64, OpenError> {
    let number = |pragma: &str| {
        db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|source| OpenError::engine(path, source))
    };
    let objects: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(|source| OpenError::engine(path, source))?;
    let (id, found) = (number("application_id")?, number("user_version")?);
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    // A first start that was interrupted leaves such a file: the tables and the marks are written
    // in one transaction.
    let new = objects == 0 && id == 0 && found == 0;
    if !new && id != i64::from(APPLICATION_ID) {
        return Err(OpenError::damaged(
            path,
            "it is a SQLite database, but not a store of this relay",
        ));
    }
    if found > known {
        return Err(OpenError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found)
}

fn prepare_schema(path: &Path, db: &Connection) -> Result<(), OpenError> {
    migrate(db, layout(path, db)?).map_err(|source| OpenError::engine(path, source))?;
    // Additions by an operator, such as the statistics of ANALYZE, do no harm.
    if columns(db)
        .map_err(|source| OpenError::engine(path, source))?
        .is_superset(&expected_columns(path)?)
    {
        Ok(())
    } else {
        Err(OpenError::damaged(path, "its tables are not those of this version"))
    }
}

fn migrate(db: &Connection, from: i64) -> rusqlite::Result<()> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    for (version, step) in (1_i64..).zip(MIGRATIONS).skip(from) {
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {step}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}; COMMIT"
        ))?;
    }
    Ok(())
}

fn expected_columns(path: &Path) -> Result<BTreeSet<String>, OpenError> {
    let model = || {
        let db = Connection::open_in_memory()?;
        migrate(&db, 0)?;
        columns(&db)
    };
    model().map_err(|source| OpenError::engine(path, source))
}

fn columns(db: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    db.prepare(
        "SELECT format('%s.%s', o.name, c.name) FROM sqlite_schema o, pragma_table_info(o.name) c
         UNION SELECT name FROM sqlite_schema WHERE type = 'index'",
    )?
    .query_map((), |row| row.get(0))?
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_number() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xFF53_4D42), Some("CIFS"));
        assert_eq!(network_file_system(0xEF53), None, "ext4");
        assert_eq!(network_file_system(0x794C_7630), None, "overlay");
        assert_eq!(network_file_system(0x0102_1994), None, "tmpfs");
    }
}
