//! PostgreSQL: any number of processes on any number of machines.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use postgres::config::Host;
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, NoTls, Row as PostgresRow, Statement};

use super::StoreError;
use super::database::{Columns, Database, Kind, Row, Value};
use super::place::hidden;

/// Any number that no other program is likely to lock.
const SCHEMA_LOCK: i64 = 0x006e_6f72_6d61_6374;

/// What each connection begins with. A worker that stops in the middle of a transaction, or whose machine drops
/// out of the network, keeps its locks for a minute and not for ever. Plans of statements are kept, also those
/// from when the tables were empty and reading all of them was best.
const BEGINNING: &str = "SET idle_in_transaction_session_timeout = '60s'; SET tcp_keepalives_idle = 30; \
                         SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET enable_seqscan = off";

/// What the URL of a server says.
pub(super) struct Server {
    config: Config,
}

impl Server {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let parsed: Result<Config, _> = url.parse();
        let mut config = parsed.map_err(|error| StoreError::unreachable(hidden(url), &cause(&error)))?;
        // By default nothing ends the wait for a server that drops out of the network, or ends it after hours.
        // What the URL says itself counts.
        let seconds = Duration::from_secs;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(seconds(10));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(seconds(60));
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(seconds(30));
        }
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(seconds(10));
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(3);
        }
        if config.get_application_name().is_none() {
            config.application_name("normact search");
        }
        Ok(Self { config })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let host = match host {
                Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                Host::Unix(folder) => folder.display().to_string(),
            };
            // One port for all, or one for each.
            let port = ports.get(number).or(ports.first()).unwrap_or(&5432);
            write!(f, "{comma}{host}:{port}")?;
        }
        // A server calls the database like the user where nothing else is said.
        write!(f, "/{}", self.config.get_dbname().or(self.config.get_user()).unwrap_or_default())
    }
}

pub(super) struct PostgresDatabase {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl PostgresDatabase {
    pub(super) fn open(server: &Server) -> Result<Self, StoreError> {
        let client = server.config.connect(NoTls).map_err(|error| match code(&error) {
            Some("53300") => StoreError::Crowded { place: server.to_string() },
            _ if may_pass(&error) => StoreError::Lost(cause(&error)),
            _ => StoreError::unreachable(server, &cause(&error)),
        })?;
        let mut database = Self { client, statements: HashMap::new() };
        database.batch(BEGINNING)?;
        Ok(database)
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

fn code(error: &postgres::Error) -> Option<&str> {
    error.as_db_error().map(|error| error.code().code())
}

/// What the server says, or else what became of the connection.
fn cause(error: &postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => said.message().to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

fn failed(error: &postgres::Error) -> StoreError {
    match code(error) {
        Some(code) if is_disk_full(code) => StoreError::DiskFull,
        _ if may_pass(error) => StoreError::Lost(cause(error)),
        _ => StoreError::Database(cause(error)),
    }
}

fn is_disk_full(code: &str) -> bool {
    code == "53100"
}

/// Whether the same may succeed on a new connection, in a while.
fn may_pass(error: &postgres::Error) -> bool {
    if let Some(code) = code(error) {
        return ends_connection(code);
    }
    let is_io = |source: &std::io::Error| {
        // A name that means nothing, for instance, is none of these.
        matches!(
            source.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::NotConnected
                | ErrorKind::BrokenPipe
                | ErrorKind::TimedOut
                | ErrorKind::UnexpectedEof
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
                // The socket of a server that is being started.
                | ErrorKind::NotFound
        )
    };
    error.is_closed() || error.source().and_then(|source| source.downcast_ref()).is_some_and(is_io)
}

/// Whether a code of an error says that the transaction or the connection was ended from outside.
fn ends_connection(code: &str) -> bool {
    // The server is stopped, was stopped, or is being started; it ended a session that was idle for too long; or
    // two transactions stood in each other's way, and it ended one.
    matches!(code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "40001" | "40P01")
        || code.starts_with("08")
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

/// The parameter that holds the values of a column.
fn array(kind: Kind, place: usize) -> String {
    let name = match kind {
        Kind::Integer => "bigint",
        Kind::Real => "double precision",
        Kind::Text => "text",
    };
    format!("${place}::{name}[]")
}

fn column<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>) -> Box<dyn ToSql + Sync + 'a> {
    match kind {
        Kind::Integer => Box::new(values.map(Value::as_integer).collect::<Vec<_>>()),
        Kind::Real => Box::new(values.map(Value::as_real).collect::<Vec<_>>()),
        Kind::Text => Box::new(values.map(Value::as_text).collect::<Vec<_>>()),
    }
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

    fn insert(&mut self, columns: &Columns, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        let names: Vec<&str> = columns.names.iter().map(|(name, _)| *name).collect();
        let arrays: Vec<String> = columns.names.iter().zip(1..).map(|((_, kind), place)| array(*kind, place)).collect();
        let sql =
            format!("INSERT INTO {} ({}) SELECT * FROM unnest({})", columns.table, names.join(", "), arrays.join(", "));
        let statement = self.prepared(&sql)?;
        let values: Vec<Box<dyn ToSql + Sync + '_>> = columns
            .names
            .iter()
            .enumerate()
            .map(|(place, (_, kind))| column(*kind, rows.iter().map(move |row| &row[place])))
            .collect();
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|values| &**values).collect();
        self.client.execute(&statement, &values).map(drop).map_err(|error| failed(&error))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(&dialect(sql)).map_err(|error| failed(&error))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.batch("BEGIN")
    }

    fn begin_loosely(&mut self) -> Result<(), StoreError> {
        self.batch("BEGIN; SET LOCAL synchronous_commit = off")
    }

    fn lock_schema(&mut self) -> Result<(), StoreError> {
        self.query("SELECT 1::bigint FROM (SELECT pg_advisory_xact_lock($1)) AS taken", &[SCHEMA_LOCK.into()]).map(drop)
    }

    fn has_table(&mut self, name: &str) -> Result<bool, StoreError> {
        Ok(self.query("SELECT to_regclass($1)::text", &[name.into()])?.iter().any(|row| row.0 != [Value::Null]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means_is_told_by_its_code() {
        for code in ["57P01", "57P02", "57P03", "57P05", "25P03", "40P01", "40001", "08006", "08003"] {
            assert!(ends_connection(code), "{code}");
        }
        // A violated constraint, a statement that is no SQL, a table that is not there.
        for code in ["23505", "42601", "42P01", "28P01", "3D000"] {
            assert!(!ends_connection(code) && !is_disk_full(code), "{code}");
        }
        assert!(is_disk_full("53100"));
    }

    #[test]
    fn servers_that_vanish_are_not_waited_for_without_end() {
        let Server { config } = Server::parse("postgres://me@db.example/found").unwrap();
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(10)));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(60)));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
        let url = "postgres://me@db.example/found?connect_timeout=3&tcp_user_timeout=4&keepalives_idle=5";
        let Server { config } = Server::parse(url).unwrap();
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)), "what the URL says counts");
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(4)));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(5));
    }

    #[test]
    fn a_session_that_idles_in_a_transaction_is_lost() {
        let Ok(server) = std::env::var("NORMACT_POSTGRES") else {
            return eprintln!("not tested on PostgreSQL: NORMACT_POSTGRES names no server");
        };
        let server = Server::parse(&format!("{server}/postgres")).unwrap();
        let mut database = PostgresDatabase::open(&server).unwrap();
        let limit = database.query("SELECT current_setting('idle_in_transaction_session_timeout')", &[]).unwrap();
        assert_eq!(limit[0].text(0).unwrap(), "1min", "no lock is kept for longer");
        database.batch("SET idle_in_transaction_session_timeout = '20ms'").unwrap();
        database.begin().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let error = database.query("SELECT 1::bigint", &[]).unwrap_err();
        assert!(matches!(error, StoreError::Lost(_)), "{error:?}");
    }
}
