//! Everything a search knows, in a database: SQLite, or PostgreSQL where the URL says so.
//!
//! A **candidate** is what a run proposed; an **evaluation** is the one training of a key. A worker takes a
//! candidate's evaluation in the transaction that proposes it, as a lease with a token; it comes back in the
//! transaction that gives a verdict to every candidate that waits for the key. A lease that nobody prolongs
//! is taken over by another worker, and the late result of the first is refused, since the token is another
//! one. So no process can be killed at a moment at which an evaluation is lost or counted twice.
//!
//! Transactions lock the evaluation first and then runs by their numbers, so that none waits for another
//! that waits for it.

mod connection;
mod database;
mod error;
mod leases;
mod measurements;
mod postgresql;
mod rows;
mod sqlite;

use std::fmt;

use connection::{connect, migrate};
use database::{Database, Row};
pub use error::StoreError;
pub(crate) use leases::{Proposal, Proposed, Task};
pub use measurements::Measurement;
use rows::{COLUMNS, candidate, protocol};
pub use rows::{Candidate, Evaluation, Origin, Run};

/// A run proposes at most so many candidates for each layer of its budget: a space with few layers has
/// nothing new to offer in the end.
const MAX_PROPOSALS: i64 = 100;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) id: i64,
    pub(crate) budget: i64,
    pub(crate) proposed: i64,
    pub(crate) spent: i64,
    pub(crate) finished: i64,
}

impl Progress {
    pub(crate) fn is_spent(&self) -> bool {
        self.spent >= self.budget || self.proposed >= self.budget * MAX_PROPOSALS
    }
}

/// A connection to the database of a search. Where it breaks, for instance since a server is started anew, it
/// is made again and what was under way is repeated: everything the store does may be done twice, since
/// proposals have numbers and verdicts need the token of their lease.
pub struct Store {
    url: String,
    database: Box<dyn Database>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the database: a `postgres://` URL, or the path of a SQLite file, with or without `sqlite:`
    /// before it. Missing tables are made, older ones brought up to date.
    ///
    /// # Errors
    /// There is no such database, or it is from a newer version.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let mut store = Self { url: url.to_owned(), database: connect(url)? };
        store.transaction(migrate)?;
        Ok(store)
    }

    /// Begins a search, or goes on with the one that is there if it has this configuration. `fingerprint`
    /// tells configurations apart; `config` is kept for people.
    ///
    /// # Errors
    /// The database holds another search.
    pub fn begin_search(&mut self, fingerprint: &str, config: &str, runs: &[Run]) -> Result<(), StoreError> {
        self.transaction(|database| {
            database.lock_schema()?;
            if let Some(known) = database.query("SELECT fingerprint FROM search", &[])?.first() {
                return if known.text(0)? == fingerprint { Ok(()) } else { Err(StoreError::OtherSearch) };
            }
            let values = [fingerprint.into(), config.into()];
            database.execute("INSERT INTO search (fingerprint, config, begun_at) VALUES ($1, $2, {now})", &values)?;
            for run in runs {
                let sql = "INSERT INTO runs (id, strategy, seed, budget, proposed, spent, finished) \
                           VALUES ($1, $2, $3, $4, 0, 0, 0)";
                let (seed, budget) = (run.seed as i64, run.budget as i64);
                database.execute(sql, &[run.id.into(), run.strategy.as_str().into(), seed.into(), budget.into()])?;
            }
            Ok(())
        })
    }

    /// The configuration that the search was begun with.
    ///
    /// # Errors
    /// The database holds no search.
    pub fn config(&mut self) -> Result<String, StoreError> {
        let rows = self.query("SELECT config FROM search", &[])?;
        rows.first().ok_or(StoreError::NoSearch)?.text(0).map(str::to_owned)
    }

    /// The runs of the search.
    ///
    /// # Errors
    /// The database fails.
    pub fn runs(&mut self) -> Result<Vec<Run>, StoreError> {
        let rows = self.query("SELECT id, strategy, seed, budget FROM runs ORDER BY id", &[])?;
        let run = |row: &Row| {
            Ok(Run {
                id: row.integer(0)?,
                strategy: row.text(1)?.to_owned(),
                seed: row.integer(2)? as u64,
                budget: row.integer(3)? as u64,
            })
        };
        rows.iter().map(run).collect()
    }

    pub(crate) fn progress(&mut self) -> Result<Vec<Progress>, StoreError> {
        let sql = "SELECT id, budget, proposed, spent, finished FROM runs ORDER BY id";
        let progress = |row: &Row| {
            let [id, budget, proposed, spent, finished] =
                [row.integer(0)?, row.integer(1)?, row.integer(2)?, row.integer(3)?, row.integer(4)?];
            Ok(Progress { id, budget, proposed, spent, finished })
        };
        self.query(sql, &[])?.iter().map(progress).collect()
    }

    /// The candidates of a run whose verdicts came after the `after`-th, in the order of verdicts.
    ///
    /// # Errors
    /// The database fails.
    pub fn finished(&mut self, run: i64, after: u64) -> Result<Vec<Candidate>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM candidates WHERE run = $1 AND finish > $2 ORDER BY finish");
        self.query(&sql, &[run.into(), (after as i64).into()])?.iter().map(candidate).collect()
    }

    /// Every candidate, by run and number.
    ///
    /// # Errors
    /// The database fails.
    pub fn candidates(&mut self) -> Result<Vec<Candidate>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM candidates ORDER BY run, number");
        self.query(&sql, &[])?.iter().map(candidate).collect()
    }

    /// Every evaluation, by key and protocol.
    ///
    /// # Errors
    /// The database fails.
    pub fn evaluations(&mut self) -> Result<Vec<Evaluation>, StoreError> {
        let sql = "SELECT key, protocol, state, attempts FROM evaluations ORDER BY key, protocol";
        let evaluation = |row: &Row| {
            Ok(Evaluation {
                key: row.text(0)?.to_owned(),
                protocol: protocol(row.text(1)?)?,
                is_done: row.text(2)? == "done",
                attempts: row.integer(3)? as u64,
            })
        };
        self.query(sql, &[])?.iter().map(evaluation).collect()
    }

    /// Whether every budget is spent and every verdict is known.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_complete(&mut self) -> Result<bool, StoreError> {
        Ok(self.progress()?.iter().all(Progress::is_spent) && !self.anything_waits()?)
    }

    /// Whether any candidate waits for its verdict.
    pub(crate) fn anything_waits(&mut self) -> Result<bool, StoreError> {
        Ok(!self.query("SELECT number FROM candidates WHERE state = 'waiting' LIMIT 1", &[])?.is_empty())
    }
}
