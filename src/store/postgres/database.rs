//! Connections to the database: two pools, and transactions on them.
//!
//! Every statement is unnamed and every setting is local to its transaction, so a pooler in
//! transaction mode may stand in between. SQL may use the names of [`with_numbers`]. A connection
//! is closed if anything failed on it.

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
use tokio::time::{error::Elapsed, timeout};
use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};

use super::{
    connect::{CONNECT_TIMEOUT, Connector, next_host, unsafe_setting},
    error::{ConnectionError, OpenError, store_error},
    settings::Settings,
};
use crate::{
    clock::Clock,
    store::{StoreError, sql::with_numbers},
};

/// A parameter and its type, which must be a built-in one.
pub(super) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement with its parameters.
pub(super) type Statement<'a> = (&'a str, &'a [Param<'a>]);

/// Priority of a transaction: decides the pool, the time limits and the planner's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Claims and hints: a delivery waits.
    Urgent,
    /// Accepts and outcomes, many rows at once. Slack waits, for at most 3 s.
    Batch,
    /// Everything else: a person waits, or nothing.
    Background,
}

impl Priority {
    /// Returns the statements that begin a transaction.
    ///
    /// `lock_timeout` exceeds PostgreSQL's `deadlock_timeout` (1 s), so deadlocks are detected
    /// first. The idle timeout ends the transaction of a process that froze.
    const fn begin(self) -> &'static str {
        match self {
            // Rows are found by indexes even if the planner's statistics are older than the rows.
            Self::Urgent => {
                "BEGIN; SET LOCAL statement_timeout = 1500; SET LOCAL lock_timeout = 1250;
                 SET LOCAL idle_in_transaction_session_timeout = 5000;
                 SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
                 SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
            }
            // For a custom plan the planner would copy the arrays of parameters into the plan.
            Self::Batch => {
                "BEGIN; SET LOCAL statement_timeout = 1500; SET LOCAL lock_timeout = 1250;
                 SET LOCAL idle_in_transaction_session_timeout = 5000;
                 SET LOCAL enable_seqscan = off; SET LOCAL jit = off;
                 SET LOCAL plan_cache_mode = force_generic_plan"
            }
            Self::Background => {
                "BEGIN; SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 5000;
                 SET LOCAL idle_in_transaction_session_timeout = 15000; SET LOCAL jit = off"
            }
        }
    }
}

/// Time limit for an answer, after which the connection is closed. A commit may wait this long for
/// a standby that is gone; Slack's request was answered with 503 long before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for an answer in migrations and imports, which move many rows.
const LONG_ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Time limit for a free connection of the pool.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// The first and the longest backoff after a failed connection attempt.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// The database as the other files of the store use it.
#[derive(Debug)]
pub(super) struct Database {
    /// Connections for [`Priority::Urgent`] and [`Priority::Batch`].
    urgent: BackoffPool,
    /// Connections for [`Priority::Background`], which never take those that alerts need.
    background: BackoffPool,
    clock: Clock,
    is_closed: AtomicBool,
    /// Commits that gave up waiting for a standby, on any connection.
    warnings: Arc<AtomicU64>,
}

/// A pool that stops opening connections for a while after an attempt failed.
#[derive(Debug)]
struct BackoffPool {
    pool: Pool,
    backoff: Mutex<Backoff>,
}

#[derive(Debug, Default)]
struct Backoff {
    until: Option<Instant>,
    length: Duration,
}

impl BackoffPool {
    fn new(connector: &Connector, settings: &Settings, size: usize) -> Result<Self, OpenError> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_connect(settings.url.config()?, connector.clone(), config);
        let timeouts = Timeouts {
            wait: Some(POOL_TIMEOUT),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(POOL_TIMEOUT),
        };
        let mut builder =
            Pool::builder(manager).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1);
        if !settings.allow_unsafe {
            builder = builder.post_create(refuse_unsafe(connector));
        }
        let pool = builder.build().map_err(|error| OpenError::Failed(error.into()))?;
        Ok(Self { pool, backoff: Mutex::default() })
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a connection would have to be opened before the backoff has ended.
    fn is_backing_off(&self, now: Instant) -> bool {
        self.backoff().until.is_some_and(|until| now < until) && self.pool.status().available == 0
    }
}

/// Returns a hook that refuses a new connection if the server may lose acknowledged commits.
fn refuse_unsafe(connector: &Connector) -> Hook {
    let hosts = Arc::clone(&connector.first);
    Hook::async_fn(move |client, _metrics| {
        let hosts = Arc::clone(&hosts);
        let first = hosts.load(Ordering::Relaxed);
        Box::pin(async move {
            let setting = timeout(CONNECT_TIMEOUT, unsafe_setting(client)).await;
            let setting = setting.map_err(|_elapsed| {
                next_host(&hosts, first);
                HookError::message("PostgreSQL did not show its settings in time")
            })?;
            match setting.map_err(HookError::Backend)? {
                Some(setting) => Err(HookError::message(OpenError::Unsafe(setting).to_string())),
                None => Ok(()),
            }
        })
    })
}

impl Database {
    /// Makes the pools. Connections are opened when they are needed.
    pub(super) fn new(settings: &Settings, clock: Clock) -> Result<Self, OpenError> {
        let connector = settings.connector();
        let background = (settings.max_connections / 3).max(1);
        let urgent = settings.max_connections.saturating_sub(background).max(3);
        Ok(Self {
            urgent: BackoffPool::new(&connector, settings, urgent)?,
            background: BackoffPool::new(&connector, settings, background)?,
            clock,
            is_closed: AtomicBool::new(false),
            warnings: connector.warnings,
        })
    }

    /// Closes the pools; later transactions fail with [`StoreError::Closed`].
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.urgent.pool.close();
        self.background.pool.close();
    }

    async fn client(&self, priority: Priority) -> Result<Client, StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let pool = match priority {
            Priority::Urgent | Priority::Batch => &self.urgent,
            Priority::Background => &self.background,
        };
        if pool.is_backing_off(self.clock.instant()) {
            return Err(ConnectionError::BackingOff.into());
        }
        match pool.pool.get().await {
            Ok(client) => {
                *pool.backoff() = Backoff::default();
                Ok(client)
            }
            Err(PoolError::Closed) => Err(StoreError::Closed),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(StoreError::Busy),
            Err(error) => {
                let mut backoff = pool.backoff();
                backoff.length = (backoff.length * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
                // Jitter of +-25 %, so that relays do not come back all at once.
                let length = backoff.length.mul_f64(0.75 + self.clock.jitter() / 2.0);
                backoff.until = Some(self.clock.instant() + length);
                Err(ConnectionError::Connect(error).into())
            }
        }
    }

    /// Returns a transaction. Nothing is sent before its first statement.
    pub(super) async fn begin(&self, priority: Priority) -> Result<Transaction<'_>, StoreError> {
        let client = Some(self.client(priority).await?);
        let timeout = ANSWER_TIMEOUT;
        Ok(Transaction { database: self, client, priority, timeout, is_open: false })
    }

    /// Runs a transaction of one statement, in one round trip.
    pub(super) async fn run(
        &self,
        priority: Priority,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.begin(priority).await?.run_and_commit(sql, params).await
    }
}

/// A transaction on a connection of the pool. Dropping it before it is finished closes the
/// connection, and the server rolls it back.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    database: &'a Database,
    client: Option<Client>,
    priority: Priority,
    /// Time limit for each answer.
    timeout: Duration,
    /// `BEGIN` was sent.
    is_open: bool,
}

impl Transaction<'_> {
    /// Lifts the time limits of the transaction, for migrations and imports. Other transactions may
    /// have to wait for its locks.
    pub(super) async fn lift_limits(&mut self) -> Result<(), StoreError> {
        self.timeout = LONG_ANSWER_TIMEOUT;
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
        let sql = with_numbers(sql);
        let client = self.client()?;
        if self.is_open {
            return answer(self.timeout, client.query_typed(&sql, params)).await;
        }
        // `BEGIN` travels with the first statement.
        let both = async {
            tokio::join!(
                biased;
                client.batch_execute(self.priority.begin()),
                client.query_typed(&sql, params),
            )
        };
        let (begun, rows) = timeout(self.timeout, both).await.map_err(timed_out)?;
        self.is_open = true;
        begun.map_err(store_error)?;
        rows.map_err(store_error)
    }

    /// Runs the only statement of the transaction and commits, in one round trip.
    async fn run_and_commit(
        mut self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        // Read before the commit, since any warning from then on makes it fail.
        let warnings = self.database.warnings.load(Ordering::SeqCst);
        let sql = with_numbers(sql);
        let client = self.client()?;
        // `biased` sends the statements in this order. If one fails, the server turns the `COMMIT`
        // into a rollback.
        let all = async {
            tokio::join!(
                biased;
                client.batch_execute(self.priority.begin()),
                client.query_typed(&sql, params),
                client.batch_execute("COMMIT"),
            )
        };
        let (begun, rows, committed) = timeout(self.timeout, all).await.map_err(timed_out)?;
        begun.map_err(store_error)?;
        let rows = rows.map_err(store_error)?;
        committed.map_err(store_error)?;
        self.return_connection(warnings)?;
        Ok(rows)
    }

    /// Runs several statements without parameters, separated by semicolons.
    pub(super) async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        if !self.is_open {
            self.query("SELECT 1", &[]).await?;
        }
        answer(self.timeout, self.client()?.batch_execute(&with_numbers(sql))).await
    }

    /// Commits. Everything is durable when this returns.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.finish(&[]).await
    }

    /// Runs the last statements and commits, in one round trip. If a statement fails, the server
    /// rolls back instead of committing.
    pub(super) async fn finish(mut self, last: &[Statement<'_>]) -> Result<(), StoreError> {
        let warnings = self.database.warnings.load(Ordering::SeqCst);
        if self.is_open {
            answer(self.timeout, run_all_and_commit(self.client()?, last)).await?;
        }
        self.return_connection(warnings)
    }

    /// Returns the connection to the pool, or fails if a commit gave up waiting for its standby
    /// since the counter `warnings` was read. The warning may belong to another connection; a
    /// failure too many does no harm.
    fn return_connection(&mut self, warnings: u64) -> Result<(), StoreError> {
        if self.database.warnings.load(Ordering::SeqCst) != warnings {
            return Err(ConnectionError::NotReplicated.into());
        }
        drop(self.client.take());
        Ok(())
    }
}

/// Waits for the answer to a statement, up to the time limit.
async fn answer<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, StoreError> {
    timeout(limit, statement).await.map_err(timed_out)?.map_err(store_error)
}

/// Sends each statement without waiting for the answer to the one before.
async fn run_all_and_commit(client: &Client, last: &[Statement<'_>]) -> Result<(), Error> {
    let [(sql, params), rest @ ..] = last else {
        return client.batch_execute("COMMIT").await;
    };
    let sql = with_numbers(sql);
    let rest = Box::pin(run_all_and_commit(client, rest));
    let (first, rest) = tokio::join!(biased; client.query_typed(&sql, params), rest);
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

fn timed_out(_elapsed: Elapsed) -> StoreError {
    ConnectionError::Timeout.into()
}
