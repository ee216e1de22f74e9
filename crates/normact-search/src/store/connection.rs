//! The connection of a store: made, made again where it breaks, and used in transactions.

use std::time::{Duration, Instant};

use super::StoreError;
use super::database::{Database, Row, Value};

/// How long a lost connection is tried to make again, which a server needs to be started anew.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// How long the first connection is tried to make. A server may be about to start; an address at which there
/// never was one may be mistyped, which is to be told soon.
const PATIENCE_AT_START: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) type Connect = Box<dyn FnMut() -> Result<Box<dyn Database>, StoreError> + Send>;

/// A connection that is made again where it breaks, for instance since a server is started anew. What was under
/// way is then repeated, though it may have been done: the connection can break between a commit and its reply.
/// So whatever is done through it must come to the same when it is done twice.
pub(super) struct Connection {
    connect: Connect,
    database: Option<Box<dyn Database>>,
    made: u64,
    /// For how long a broken connection is tried to make again; after that, what broke it is told.
    pub(super) patience: Duration,
    pub(super) pause: Duration,
}

impl Connection {
    /// A connection that is made when it is needed.
    pub(super) fn new(connect: Connect) -> Self {
        Self { connect, database: None, made: 0, patience: PATIENCE_AT_START, pause: PAUSE }
    }

    /// How often it was made.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Does something with the database, and does it again on a new connection where the connection breaks.
    pub(super) fn persist<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let mut attempts = 0;
        loop {
            let result = self.connected().and_then(&mut work);
            let Err(error @ (StoreError::Lost(_) | StoreError::Crowded { .. })) = result else { return result };
            self.database = None;
            if start.elapsed() >= self.patience {
                return Err(error);
            }
            // Most often a second attempt succeeds; a server that takes connections and breaks them again is not
            // to be asked without a pause.
            if attempts > 0 {
                std::thread::sleep(self.pause);
            }
            attempts += 1;
        }
    }

    fn connected(&mut self) -> Result<&mut dyn Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = (self.connect)().map_err(|error| match error {
                    // It was there before, so whatever is in the way now may pass.
                    StoreError::Unreachable { problem, .. } if self.made > 0 => StoreError::Lost(problem),
                    other => other,
                })?;
                self.made += 1;
                database
            }
        };
        Ok(&mut **self.database.insert(database))
    }

    /// Runs `work` in a transaction, which is undone where `work` fails.
    pub(super) fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.persist(|database| {
            database.begin()?;
            end(database, &mut work, |_| true)
        })
    }

    /// Runs `work` in a transaction, which is undone where `work` fails or gives nothing, and which may not have
    /// happened should the server break down within a moment.
    pub(super) fn loose_transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.persist(|database| {
            database.begin_loosely()?;
            end(database, &mut work, Option::is_some)
        })
    }

    pub(super) fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.persist(|database| database.query(sql, values))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.persist(|database| database.execute(sql, values))
    }
}

/// Does the work of a transaction that has begun, and ends it; it is undone where the work fails or gives what is
/// not to be kept.
fn end<T>(
    database: &mut dyn Database,
    work: &mut impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    is_kept: impl Fn(&T) -> bool,
) -> Result<T, StoreError> {
    match work(database) {
        Ok(value) if is_kept(&value) => match database.commit() {
            Ok(()) => Ok(value),
            Err(error) => {
                // A commit that failed may leave the transaction open.
                let _ = database.roll_back();
                Err(error)
            }
        },
        Ok(value) => database.roll_back().map(|()| value),
        Err(error) => {
            // What went wrong first is what to tell; a database may have rolled back by itself.
            let _ = database.roll_back();
            Err(error)
        }
    }
}
