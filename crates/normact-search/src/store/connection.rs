//! The connection of a store: made, made again where it breaks, and used in transactions.

use std::path::Path;
use std::time::{Duration, Instant};

use super::database::{Database, Row, Value};
use super::{Store, StoreError, postgresql, sqlite};

/// The scripts that bring a database from one version to the next.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("measurements.sql")];

/// How long a lost connection is tried to make again, which a server needs to be started anew.
const PATIENCE: Duration = Duration::from_secs(300);

/// The pause between two attempts at a connection.
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(500);

impl Store {
    /// Does something with the database, and does it again on a new connection where the connection breaks.
    fn persist<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        loop {
            let result = work(&mut *self.database);
            if !matches!(result, Err(StoreError::Lost(_))) || start.elapsed() >= PATIENCE {
                return result;
            }
            loop {
                match connect(&self.url) {
                    Ok(database) => break self.database = database,
                    Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(BETWEEN_CONNECTIONS),
                    Err(_) => return result,
                }
            }
        }
    }

    /// Runs `work` in a transaction, which is undone where `work` fails.
    pub(super) fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction_if(|database| Ok((work(database)?, true)))
    }

    /// Runs `work` in a transaction, which is undone where `work` fails or says so.
    pub(super) fn transaction_if<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        self.persist(|database| {
            database.begin()?;
            let result = work(database);
            let end = database.batch(if matches!(result, Ok((_, true))) { "COMMIT" } else { "ROLLBACK" });
            match (result, end) {
                // What went wrong first is what to tell; a database may have rolled back by itself.
                (Err(error), _) => Err(error),
                (Ok((value, _)), Ok(())) => Ok(value),
                (Ok(_), Err(error)) => {
                    // A commit that failed may leave the transaction open.
                    let _ = database.batch("ROLLBACK");
                    Err(error)
                }
            }
        })
    }

    pub(super) fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.persist(|database| database.query(sql, values))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.persist(|database| database.execute(sql, values))
    }
}

/// A connection of the kind that the URL says.
pub(super) fn connect(url: &str) -> Result<Box<dyn Database>, StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Box::new(postgresql::PostgresDatabase::open(url)?));
    }
    Ok(Box::new(sqlite::SqliteDatabase::open(Path::new(url.strip_prefix("sqlite:").unwrap_or(url)))?))
}

pub(super) fn migrate(database: &mut dyn Database) -> Result<(), StoreError> {
    database.lock_schema()?;
    database.batch("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")?;
    let rows = database.query("SELECT version FROM schema_version", &[])?;
    let found = rows.first().map(|row| row.integer(0)).transpose()?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for script in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        database.batch(script)?;
    }
    if found != known {
        database.execute("DELETE FROM schema_version", &[])?;
        database.execute("INSERT INTO schema_version (version) VALUES ($1)", &[known.into()])?;
    }
    Ok(())
}
