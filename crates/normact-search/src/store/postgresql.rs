//! PostgreSQL: any number of processes on any number of machines.

use std::error::Error as _;

use postgres::types::{ToSql, Type};
use postgres::{Client, NoTls, Row as PostgresRow, Statement};

use super::StoreError;
use super::database::{Database, Row, Value};

/// Any number that no other program is likely to lock.
const SCHEMA_LOCK: i64 = 0x006e_6f72_6d61_6374;

pub(super) struct PostgresDatabase {
    client: Client,
    statements: std::collections::HashMap<String, Statement>,
}

impl PostgresDatabase {
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        let client = Client::connect(url, NoTls).map_err(|error| {
            // Without what may be a password.
            let place = url.rsplit_once('@').map_or(url, |(_, place)| place);
            StoreError::unreachable(place, &error.source().map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        Ok(Self { client, statements: Default::default() })
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(&dialect(sql)).map_err(|error| failed(&error))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn dialect(sql: &str) -> String {
    sql.replace("{now}", "extract(epoch from clock_timestamp())::double precision")
        .replace("{lock}", "FOR UPDATE")
        .replace("{take}", "FOR UPDATE SKIP LOCKED")
}

fn failed(error: &postgres::Error) -> StoreError {
    match error.as_db_error() {
        Some(database) if database.code().code() == "53100" => StoreError::DiskFull,
        // The server is stopped, was stopped, or is being started.
        Some(database) if matches!(database.code().code(), "57P01" | "57P02" | "57P03") => {
            StoreError::Lost(database.message().to_owned())
        }
        Some(database) => StoreError::Database(database.message().to_owned()),
        None if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            StoreError::Lost(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
        None => StoreError::Database(error.to_string()),
    }
}

fn parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    let none: &(dyn ToSql + Sync) = &Nothing;
    values
        .iter()
        .map(|value| match value {
            Value::Null => none,
            Value::Integer(value) => value as &(dyn ToSql + Sync),
            Value::Real(value) => value,
            Value::Text(value) => value,
        })
        .collect()
}

/// A null of whatever type the column has.
#[derive(Debug)]
struct Nothing;

impl ToSql for Nothing {
    fn to_sql(
        &self,
        _: &Type,
        _: &mut postgres::types::private::BytesMut,
    ) -> Result<postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(postgres::types::IsNull::Yes)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

fn row(from: &PostgresRow) -> Result<Row, StoreError> {
    let value = |column: usize| {
        let name = from.columns()[column].type_().name();
        let value = match name {
            "int8" => from.try_get::<_, Option<i64>>(column).map(|value| value.map(Value::Integer)),
            "float8" => from.try_get::<_, Option<f64>>(column).map(|value| value.map(Value::Real)),
            "text" => from.try_get::<_, Option<String>>(column).map(|value| value.map(Value::Text)),
            other => return Err(StoreError::damaged(format!("column {column} has the type {other}"))),
        };
        value.map(|value| value.unwrap_or(Value::Null)).map_err(|error| failed(&error))
    };
    (0..from.len()).map(value).collect::<Result<_, _>>().map(Row)
}

impl Database for PostgresDatabase {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        let statement = self.prepared(sql)?;
        self.client.execute(&statement, &parameters(values)).map_err(|error| failed(&error))
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepared(sql)?;
        let rows = self.client.query(&statement, &parameters(values)).map_err(|error| failed(&error))?;
        rows.iter().map(row).collect()
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(&dialect(sql)).map_err(|error| failed(&error))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.batch("BEGIN")
    }

    fn lock_schema(&mut self) -> Result<(), StoreError> {
        self.query("SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock($1)) AS taken", &[SCHEMA_LOCK.into()]).map(drop)
    }
}
