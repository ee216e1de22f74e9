//! SQLite, in a file: nothing to set up, several processes on one machine.
//!
//! The write-ahead log lets readers go on while one process writes. It is brought to the disk at
//! checkpoints (`synchronous = NORMAL`): a process that is killed loses nothing, a machine that loses power
//! at most the last moments, and the file stays whole in both cases.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use rusqlite::types::{ToSqlOutput, Value as Sqlite, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OpenFlags, ToSql, params_from_iter};

use super::StoreError;
use super::database::{Columns, Database, Row, Value};

/// How long a process waits for its turn to write.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct SqliteDatabase {
    connection: Connection,
    /// Statements in SQLite's words, by the store's.
    translated: HashMap<String, String>,
}

impl SqliteDatabase {
    /// Opens the file; one that is not there is made, with its folder, if `makes_files`.
    pub(super) fn open(path: &Path, makes_files: bool) -> Result<Self, StoreError> {
        let unreachable = |error: &dyn std::fmt::Display| StoreError::unreachable(path.display(), &error);
        // To SQLite these are databases in memory, which no other process and no other connection would see.
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            return Err(unreachable(&"a search needs a file"));
        }
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if makes_files {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(|error| unreachable(&error))?;
            }
        } else if !path.exists() {
            return Err(StoreError::NoDatabase { place: path.display().to_string() });
        }
        let connection = Connection::open_with_flags(path, flags).map_err(|error| unreachable(&error))?;
        let set_up = || {
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(())
        };
        set_up().map_err(|error: rusqlite::Error| match failed(&error) {
            StoreError::DiskFull => StoreError::DiskFull,
            _ => unreachable(&error),
        })?;
        Ok(Self { connection, translated: HashMap::new() })
    }

    fn prepared(&mut self, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        if !self.translated.contains_key(sql) {
            self.translated.insert(sql.to_owned(), dialect(sql));
        }
        self.connection.prepare_cached(&self.translated[sql]).map_err(|error| failed(&error))
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
    match error.sqlite_error().map(|error| (error.code, error.extended_code)) {
        // Also where there is no room for the file that processes share.
        Some((ErrorCode::DiskFull, _) | (_, SQLITE_IOERR_SHMSIZE)) => StoreError::DiskFull,
        Some((ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt, _)) => StoreError::damaged(error.to_string()),
        _ => StoreError::Database(error.to_string()),
    }
}

impl Database for SqliteDatabase {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        let mut statement = self.prepared(sql)?;
        statement.execute(params_from_iter(values)).map(|rows| rows as u64).map_err(|error| failed(&error))
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.prepared(sql)?;
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

    fn insert(&mut self, columns: &Columns, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        let names: Vec<&str> = columns.names.iter().map(|(name, _)| *name).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
        let sql = format!("INSERT INTO {} ({}) VALUES ({})", columns.table, names.join(", "), places.join(", "));
        let mut statement = self.prepared(&sql)?;
        for row in rows {
            statement.execute(params_from_iter(row)).map_err(|error| failed(&error))?;
        }
        Ok(())
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

    fn has_table(&mut self, name: &str) -> Result<bool, StoreError> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = $1";
        Ok(!self.query(sql, &[name.into()])?.is_empty())
    }
}
