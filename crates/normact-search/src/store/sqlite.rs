//! SQLite, in a file: nothing to set up, several processes on one machine.
//!
//! The write-ahead log lets readers go on while one process writes. It is brought to the disk at
//! checkpoints (`synchronous = NORMAL`): a process that is killed loses nothing, a machine that loses power
//! at most the last moments, and the file stays whole in both cases.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, Value as Sqlite, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

use super::StoreError;
use super::database::{Database, Row, Value};

/// How long a process waits for its turn to write.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct SqliteDatabase {
    connection: Connection,
}

impl SqliteDatabase {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| StoreError::unreachable(path.display(), &error))?;
        }
        let connection = Connection::open(path).map_err(|error| StoreError::unreachable(path.display(), &error))?;
        let set_up = || {
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(())
        };
        set_up().map_err(|error: rusqlite::Error| StoreError::unreachable(path.display(), &error))?;
        Ok(Self { connection })
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Owned(Sqlite::Null),
            Value::Integer(value) => ToSqlOutput::Owned(Sqlite::Integer(*value)),
            Value::Real(value) => ToSqlOutput::Owned(Sqlite::Real(*value)),
            Value::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
        })
    }
}

/// The SQL for SQLite, where one process writes at a time.
fn dialect(sql: &str) -> String {
    sql.replace("{now}", "unixepoch('subsec')").replace("{lock}", "").replace("{take}", "")
}

fn failed(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::damaged(error.to_string()),
        _ => StoreError::Database(error.to_string()),
    }
}

impl Database for SqliteDatabase {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(&dialect(sql)).map_err(|error| failed(&error))?;
        statement.execute(params_from_iter(values)).map(|rows| rows as u64).map_err(|error| failed(&error))
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare_cached(&dialect(sql)).map_err(|error| failed(&error))?;
        let columns = statement.column_count();
        let rows = statement.query_map(params_from_iter(values), |row| {
            let value = |column: usize| {
                Ok(match row.get::<_, Sqlite>(column)? {
                    Sqlite::Integer(value) => Value::Integer(value),
                    Sqlite::Real(value) => Value::Real(value),
                    Sqlite::Text(value) => Value::Text(value),
                    Sqlite::Null | Sqlite::Blob(_) => Value::Null,
                })
            };
            (0..columns).map(value).collect::<rusqlite::Result<_>>().map(Row)
        });
        rows.and_then(Iterator::collect).map_err(|error| failed(&error))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.connection.execute_batch(&dialect(sql)).map_err(|error| failed(&error))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.batch("BEGIN IMMEDIATE")
    }

    fn lock_schema(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
