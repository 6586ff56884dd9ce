//! The door to the database: two pools of connections, and transactions on them.
//!
//! Every statement is unnamed and every setting is local to its transaction, so a pooler that hands
//! out another server connection for each transaction may stand in between. A connection on which
//! anything went wrong is dropped, never used again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod,
    Runtime, Timeouts,
};
use tokio::time::timeout;
use tokio_postgres::{
    Error, Row,
    error::SqlState,
    types::{ToSql, Type},
};

use super::{
    OpenError, Settings,
    connect::{CREATE, Connector, next_host, unsafe_setting},
};
use crate::{clock::Clock, store::StoreError};

/// A parameter and its type, which must be one of the built-in ones.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement with its parameters.
pub(super) type Statement<'a> = (&'a str, &'a [Param<'a>]);

/// Who waits for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// A delivery.
    Hot,
    /// Slack, whose patience ends after 3 s, and outcomes: many rows at once.
    Batch,
    /// A person, or nobody.
    Patient,
}

impl Haste {
    /// Opens a transaction. The urgent ones find their rows by their indexes, whatever the planner
    /// knows about tables that have just grown; and many rows are not copied into a plan that is
    /// made for them alone. Whoever waits for a lock waits for longer than a server takes to look
    /// for a circle of them (1 s), since it breaks that. A process that froze inside of one is
    /// thrown out.
    const fn begin(self) -> &'static str {
        match self {
            Self::Hot => {
                "BEGIN; SET LOCAL statement_timeout = 1500; SET LOCAL lock_timeout = 1250;
                 SET LOCAL idle_in_transaction_session_timeout = 5000;
                 SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
                 SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
            }
            Self::Batch => {
                "BEGIN; SET LOCAL statement_timeout = 1500; SET LOCAL lock_timeout = 1250;
                 SET LOCAL idle_in_transaction_session_timeout = 5000;
                 SET LOCAL enable_seqscan = off; SET LOCAL jit = off;
                 SET LOCAL plan_cache_mode = force_generic_plan"
            }
            Self::Patient => {
                "BEGIN; SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 5000;
                 SET LOCAL idle_in_transaction_session_timeout = 15000; SET LOCAL jit = off"
            }
        }
    }
}

/// A server that has not answered for so long will not: its connection is dropped. A commit waits
/// for a standby that is gone up to then; its sender has been told 503 long before.
const ANSWER: Duration = Duration::from_secs(10);

/// The same, where many rows move and nobody waits.
const LONG_ANSWER: Duration = Duration::from_secs(3600);

/// For a connection to become free.
const WAIT: Duration = Duration::from_secs(1);

/// From the first to the longest pause after a connection could not be made.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What can be wrong beside what the server says.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no connection to PostgreSQL")]
    Connection(#[source] PoolError),
    #[error("PostgreSQL could not be reached a moment ago")]
    Pause,
    #[error("PostgreSQL did not answer in time")]
    Silence,
    #[error("PostgreSQL warned at the commit: it may not be on the standby")]
    Unsure,
    #[error("the stored value is not one of this relay's")]
    Foreign(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The database, as the rest of the store sees it.
#[derive(Debug)]
pub(super) struct Door {
    hot: Gate,
    patient: Gate,
    clock: Clock,
    is_closed: AtomicBool,
    warnings: Arc<AtomicU64>,
}

/// A pool, and until when it makes no more connections.
#[derive(Debug)]
struct Gate {
    pool: Pool,
    pause: Mutex<Pause>,
}

#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    length: Duration,
}

impl Gate {
    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection would have to be made, and that is not tried yet.
    fn is_shut(&self, now: Instant) -> bool {
        self.pause().until.is_some_and(|until| now < until) && self.pool.status().available == 0
    }
}

impl Door {
    pub(super) fn new(settings: &Settings, clock: Clock) -> Result<Self, OpenError> {
        let connector = settings.connector();
        // Looking at things never takes the connections that alerts need.
        let patient = (settings.max_connections / 3).max(1);
        let hot = settings.max_connections.saturating_sub(patient).max(3);
        Ok(Self {
            hot: gate(&connector, settings, hot)?,
            patient: gate(&connector, settings, patient)?,
            clock,
            is_closed: AtomicBool::new(false),
            warnings: connector.warnings,
        })
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.hot.pool.close();
        self.patient.pool.close();
    }

    async fn client(&self, haste: Haste) -> Result<Client, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let gate = match haste {
            Haste::Hot | Haste::Batch => &self.hot,
            Haste::Patient => &self.patient,
        };
        if gate.is_shut(self.clock.instant()) {
            return Err(StoreError::Engine(Trouble::Pause.into()));
        }
        match gate.pool.get().await {
            Ok(client) => {
                *gate.pause() = Pause::default();
                Ok(client)
            }
            Err(PoolError::Closed) => Err(StoreError::Closed),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(StoreError::Busy),
            Err(error) => {
                let mut pause = gate.pause();
                pause.length = (pause.length * 2).clamp(PAUSES.0, PAUSES.1);
                let length = pause.length.mul_f64(0.75 + self.clock.jitter() / 2.0);
                pause.until = Some(self.clock.instant() + length);
                Err(StoreError::Engine(Trouble::Connection(error).into()))
            }
        }
    }

    /// A transaction; nothing is sent until its first statement.
    pub(super) async fn begin(&self, haste: Haste) -> Result<Transaction<'_>, StoreError> {
        let client = self.client(haste).await?;
        let (client, answer) = (Some(client), ANSWER);
        Ok(Transaction { door: self, client, haste, answer, is_open: false })
    }

    /// A transaction of one statement, in one round trip.
    pub(super) async fn run(
        &self,
        haste: Haste,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.begin(haste).await?.alone(sql, params).await
    }
}

fn gate(connector: &Connector, settings: &Settings, size: usize) -> Result<Gate, OpenError> {
    let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(settings.url.config()?, connector.clone(), how);
    let times = Timeouts { wait: Some(WAIT), create: Some(CREATE), recycle: Some(WAIT) };
    let mut builder =
        Pool::builder(manager).max_size(size).timeouts(times).runtime(Runtime::Tokio1);
    if !settings.allow_unsafe {
        let hosts = Arc::clone(&connector.first);
        builder = builder.post_create(Hook::async_fn(move |client, _metrics| {
            let (hosts, first) = (Arc::clone(&hosts), hosts.load(Ordering::Relaxed));
            Box::pin(async move {
                let setting = timeout(CREATE, unsafe_setting(client)).await;
                let setting = setting.map_err(|_elapsed| {
                    next_host(&hosts, first);
                    HookError::message("PostgreSQL does not say how it is set up")
                })?;
                match setting.map_err(HookError::Backend)? {
                    Some(setting) => {
                        Err(HookError::message(OpenError::Unsafe(setting).to_string()))
                    }
                    None => Ok(()),
                }
            })
        }));
    }
    let pool = builder.build().map_err(|error| OpenError::Failed(error.into()))?;
    Ok(Gate { pool, pause: Mutex::default() })
}

/// A transaction on a connection of the pool. Dropped unfinished, it takes the connection with it,
/// and the server undoes it.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    door: &'a Door,
    client: Option<Client>,
    haste: Haste,
    answer: Duration,
    is_open: bool,
}

impl Transaction<'_> {
    /// Lets its statements take their time, in which others may have to wait for it.
    pub(super) async fn take_time(&mut self) -> Result<(), StoreError> {
        self.answer = LONG_ANSWER;
        self.batch(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s';
             SET LOCAL idle_in_transaction_session_timeout = 0",
        )
        .await
    }

    fn client(&self) -> Result<&Client, StoreError> {
        self.client.as_ref().ok_or(StoreError::Closed)
    }

    /// Runs a statement. After an error the transaction can only be dropped.
    pub(super) async fn query(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client()?;
        if self.is_open {
            let rows = timeout(self.answer, client.query_typed(sql, params));
            return rows.await.map_err(|_elapsed| silence())?.map_err(failed);
        }
        let both = async {
            tokio::join!(
                biased;
                client.batch_execute(self.haste.begin()),
                client.query_typed(sql, params),
            )
        };
        let (begun, rows) = timeout(self.answer, both).await.map_err(|_elapsed| silence())?;
        self.is_open = true;
        begun.map_err(failed)?;
        rows.map_err(failed)
    }

    /// Runs the only statement and makes it durable, in one round trip.
    pub(super) async fn alone(
        mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let warnings = self.door.warnings.load(Ordering::SeqCst);
        let client = self.client()?;
        let all = async {
            tokio::join!(
                biased;
                client.batch_execute(self.haste.begin()),
                client.query_typed(sql, params),
                client.batch_execute("COMMIT"),
            )
        };
        let (begun, rows, committed) =
            timeout(self.answer, all).await.map_err(|_elapsed| silence())?;
        begun.map_err(failed)?;
        let rows = rows.map_err(failed)?;
        committed.map_err(failed)?;
        self.end(warnings)?;
        Ok(rows)
    }

    /// Runs many statements without parameters.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        if !self.is_open {
            self.query("SELECT 1", &[]).await?;
        }
        let done = timeout(self.answer, self.client()?.batch_execute(sql));
        done.await.map_err(|_elapsed| silence())?.map_err(failed)
    }

    /// Makes everything durable.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.finish(&[]).await
    }

    /// Runs the last statements and makes everything durable, in one round trip. After a statement
    /// that fails the server undoes the transaction in place of the commit.
    pub(super) async fn finish(mut self, last: &[Statement<'_>]) -> Result<(), StoreError> {
        let warnings = self.door.warnings.load(Ordering::SeqCst);
        if self.is_open {
            let done = timeout(self.answer, and_commit(self.client()?, last));
            done.await.map_err(|_elapsed| silence())?.map_err(failed)?;
        }
        self.end(warnings)
    }

    /// The connection is as good as new, unless the server warned meanwhile.
    fn end(&mut self, warnings: u64) -> Result<(), StoreError> {
        if self.door.warnings.load(Ordering::SeqCst) != warnings {
            return Err(StoreError::Engine(Trouble::Unsure.into()));
        }
        drop(self.client.take());
        Ok(())
    }
}

/// Sends each statement before the one before it is answered.
async fn and_commit(client: &Client, last: &[Statement<'_>]) -> Result<(), Error> {
    let [(sql, params), rest @ ..] = last else {
        return client.batch_execute("COMMIT").await;
    };
    let rest = Box::pin(and_commit(client, rest));
    let (first, rest) = tokio::join!(biased; client.query_typed(sql, params), rest);
    first?;
    rest
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

fn silence() -> StoreError {
    StoreError::Engine(Trouble::Silence.into())
}

/// What the server said, in the store's words.
pub(super) fn failed(error: Error) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::DISK_FULL => StoreError::Full,
        Some(code) if is_items_own(code) => StoreError::Item(error.into()),
        Some(_) | None => StoreError::Engine(error.into()),
    }
}

/// Data that cannot be taken, or something larger than the engine can hold. Not a constraint: what
/// breaks one is sound, and the tables are not what the relay takes them for.
fn is_items_own(code: &SqlState) -> bool {
    ["22", "54"].iter().any(|class| code.code().starts_with(class))
}

/// Whether the same transaction may well succeed when it is tried again at once.
pub(super) fn is_worth_another_try(error: &StoreError) -> bool {
    let StoreError::Engine(source) = error else {
        return false;
    };
    let code = source.downcast_ref::<Error>().and_then(Error::code);
    code.is_some_and(|code| {
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code)
    })
}
