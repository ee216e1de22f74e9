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
    /// There is no file at that place, and none was to be made.
    #[error("there is no database at {place}")]
    NoDatabase {
        /// Where it should be.
        place: String,
    },
    /// The URL names a database of another kind.
    #[error("{place} is no database of a kind that a search can use")]
    UnknownKind {
        /// The URL, without what may be a password.
        place: String,
    },
    /// The server has as many connections as it takes.
    #[error("the database {place} takes no more connections")]
    Crowded {
        /// Where it is.
        place: String,
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
    #[error("the database {place} holds a search with another configuration")]
    OtherSearch {
        /// Where it is.
        place: String,
        /// The configuration of that search, as it was begun.
        config: String,
    },
    /// The search was begun by a program that has other canonical keys, so that layers it has judged would not be
    /// recognized.
    #[error(
        "the search in the database {place} has canonical keys of version {found}, and this program makes keys of \
         version {known}: it would not recognize what has been judged"
    )]
    OtherKeys {
        /// Where it is.
        place: String,
        /// The version of the keys in it.
        found: String,
        /// The version of the program's keys.
        known: String,
    },
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
            StoreError::Unreachable { .. } | StoreError::UnknownKind { .. } => {
                Some("a database is a path for SQLite or a postgres:// URL")
            }
            StoreError::Crowded { .. } => {
                Some("each worker needs two: raise max_connections of the server, or start fewer workers")
            }
            StoreError::Newer { .. } => Some("use the newer program, or another database"),
            StoreError::OtherSearch { .. } => Some("give each search a database of its own"),
            StoreError::OtherKeys { .. } => {
                Some("finish the search with the program that began it, or begin a new one in another database")
            }
            StoreError::NoDatabase { .. } | StoreError::NoSearch => Some("begin one with `normact search CONFIG`"),
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
