//! Where a database is: a file for SQLite, a server for PostgreSQL.

use std::fmt;
use std::path::PathBuf;

use super::StoreError;
use super::database::Database;
use super::postgresql::{PostgresDatabase, Server};
use super::sqlite::SqliteDatabase;

pub(super) enum Place {
    File(PathBuf),
    Server(Box<Server>),
}

impl Place {
    /// Reads `postgres://...`, `postgresql://...`, or the path of a file with or without `sqlite:` before it.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let Some((scheme, rest)) = scheme(url) else {
            return Ok(Place::File(PathBuf::from(url.strip_prefix("sqlite:").unwrap_or(url))));
        };
        match scheme {
            "postgres" | "postgresql" => Ok(Place::Server(Box::new(Server::parse(url)?))),
            "sqlite" => Ok(Place::File(PathBuf::from(rest))),
            // Taken for a path it would become a folder of that name.
            _ => Err(StoreError::UnknownKind { place: hidden(url) }),
        }
    }

    /// Connects. A file is made, with its folder, if it is not there and `makes_files`.
    pub(super) fn connect(&self, makes_files: bool) -> Result<Box<dyn Database>, StoreError> {
        Ok(match self {
            Place::File(path) => Box::new(SqliteDatabase::open(path, makes_files)?),
            Place::Server(server) => Box::new(PostgresDatabase::open(server)?),
        })
    }
}

/// As messages name it: without user and password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Server(server) => write!(f, "{server}"),
        }
    }
}

/// A database as messages may name it: its URL without user, password and options.
pub fn place_of(url: &str) -> String {
    Place::parse(url).map_or_else(|_| hidden(url), |place| place.to_string())
}

/// What is before `://`, if that looks like the name of a scheme, and what is behind.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_name = scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    (is_name && !scheme.is_empty()).then_some((scheme, rest))
}

/// A URL that cannot be read, without all in which a password may be.
pub(super) fn hidden(url: &str) -> String {
    scheme(url).map_or_else(|| url.to_owned(), |(scheme, _)| format!("{scheme}://..."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_without_passwords() {
        for (url, place) in [
            ("postgres://me:secret@db.example:5433/found", "db.example:5433/found"),
            ("postgresql://db.example/found?user=me&password=secret", "db.example:5432/found"),
            ("postgres://me:secret@a,b:7/found", "a:5432,b:7/found"),
            ("postgres://me@%2Frun%2Fpostgresql/found", "/run/postgresql:5432/found"),
            ("postgres://me:secret@db.example", "db.example:5432/me"),
            // What cannot be read may have a password anywhere.
            ("postgres://me:sec?r@t@db.example:many/found?password=secret", "postgres://..."),
            ("mysql://me:secret@db.example/found", "mysql://..."),
            ("runs/search.db", "runs/search.db"),
            ("sqlite:runs/search.db", "runs/search.db"),
            ("sqlite:///var/search.db", "/var/search.db"),
            ("sqlite://runs/search.db", "runs/search.db"),
            ("me@home/search?.db", "me@home/search?.db"),
        ] {
            assert_eq!(place_of(url), place, "{url}");
        }
    }

    #[test]
    fn other_kinds_of_databases_are_no_paths() {
        for url in ["mysql://me:secret@host/found", "postgre://host/found", "file:///tmp/search.db"] {
            let Err(error) = Place::parse(url) else { panic!("{url} was taken for a place") };
            assert!(matches!(error, StoreError::UnknownKind { .. }), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(error.help().is_some());
        }
    }
}
