//! The tables of a store, and how a database of an earlier version gets those of today.

use super::StoreError;
use super::connection::Connection;
use super::database::Database;

/// The scripts that bring a database from one version to the next.
const SCRIPTS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("measurements.sql"),
    include_str!("batches.sql"),
    include_str!("measurement_leases.sql"),
];

/// Makes tables that are missing, where that is wanted, and brings older ones up to date.
pub(super) fn bring_up_to_date(connection: &mut Connection, makes_tables: bool) -> Result<(), StoreError> {
    // A look first: most often there is nothing to do, and readers are not to wait for those who write.
    match connection.persist(version)? {
        Some(found) if found == SCRIPTS.len() as i64 => Ok(()),
        None if !makes_tables => Err(StoreError::NoSearch),
        _ => connection.transaction(migrate),
    }
}

fn version(database: &mut dyn Database) -> Result<Option<i64>, StoreError> {
    if !database.has_table("schema_version")? {
        return Ok(None);
    }
    database.query("SELECT version FROM schema_version", &[])?.first().map(|row| row.integer(0)).transpose()
}

fn migrate(database: &mut dyn Database) -> Result<(), StoreError> {
    database.lock_schema()?;
    database.batch("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")?;
    let found = version(database)?.unwrap_or(0);
    let known = SCRIPTS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for script in &SCRIPTS[usize::try_from(found).unwrap_or(0)..] {
        database.batch(script)?;
    }
    if found != known {
        database.execute("DELETE FROM schema_version", &[])?;
        database.execute("INSERT INTO schema_version (version) VALUES ($1)", &[known.into()])?;
    }
    Ok(())
}
