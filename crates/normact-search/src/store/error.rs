//! Why the store cannot do what it was asked for, and what to do about it.

use std::fmt;

/// Why the store cannot do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no database at that place.
    #[error("cannot open the database {place}: {problem}")]
    Unreachable {
        /// Where it should be.
        place: String,
        /// What happened.
        problem: String,
    },
    /// The database was made by a later version of the program.
    #[error("the database has schema {found}, and this program knows schemas up to {known}")]
    Newer {
        /// The version of its schema.
        found: i64,
        /// The last one known.
        known: i64,
    },
    /// The database holds another search.
    #[error("the database holds a search with another configuration")]
    OtherSearch,
    /// The database holds no search yet.
    #[error("the database holds no search")]
    NoSearch,
    /// The disk is full.
    #[error("the disk with the database is full")]
    DiskFull,
    /// The database holds something that this program did not write.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The connection broke, and no new one could be made.
    #[error("the connection to the database is lost: {0}")]
    Lost(String),
    /// Any other problem that the database reports.
    #[error("the database says: {0}")]
    Database(String),
}

impl StoreError {
    /// What to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            StoreError::Unreachable { .. } => Some("a database is a path for SQLite or a postgres:// URL"),
            StoreError::Newer { .. } => Some("use the newer program, or another database"),
            StoreError::OtherSearch => Some("give each search a database of its own"),
            StoreError::NoSearch => Some("begin one with `normact search CONFIG`"),
            StoreError::DiskFull => Some("make room and start the search again: it goes on where it stopped"),
            StoreError::Damaged(_) => Some("restore it from a copy, or begin a new search"),
            StoreError::Lost(_) => {
                Some("start the search again once the database answers: it goes on where it stopped")
            }
            StoreError::Database(_) => None,
        }
    }

    pub(super) fn unreachable(place: impl fmt::Display, problem: &impl fmt::Display) -> Self {
        StoreError::Unreachable { place: place.to_string(), problem: problem.to_string() }
    }

    pub(super) fn damaged(problem: impl Into<String>) -> Self {
        StoreError::Damaged(problem.into())
    }
}
