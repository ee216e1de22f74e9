//! Everything a search knows, in a database: SQLite, or PostgreSQL where the URL says so.
//!
//! A **candidate** is what a run proposed; an **evaluation** is the one training of a key. A worker takes a
//! candidate's evaluation in the transaction that proposes it, as a lease with a token; it comes back in the
//! transaction that gives a verdict to every candidate that waits for the key. A lease that nobody prolongs
//! is taken over by another worker, and the late result of the first is refused, since the token is another
//! one. So no process can be killed at a moment at which an evaluation is lost or counted twice.
//!
//! Where the connection breaks, it is made again and what was under way is repeated. So everything here may be
//! done twice: a batch of candidates says which number it begins with, a lease has a token of its own, and what
//! bears that token is recognized as done.
//!
//! Transactions lock the evaluation first and then runs by their numbers, so that none waits for another
//! that waits for it.

mod connection;
mod database;
mod error;
#[cfg(test)]
mod faults;
mod leases;
mod measurements;
mod migration;
mod place;
mod postgresql;
mod proposals;
mod rows;
mod sqlite;

use std::fmt;
use std::time::Duration;

use normact_egraph::Key;

use crate::fitness::Verdict;
use connection::Connection;
use database::Row;
pub use error::StoreError;
pub(crate) use leases::{Lease, Task};
pub(crate) use measurements::TrainingState;
pub use measurements::{Measurement, Training};
use place::Place;
pub use place::place_of;
pub(crate) use proposals::{Batch, Fate, Proposal};
use rows::{COLUMNS, candidate, protocol};
pub use rows::{Candidate, Evaluation, Origin, Run};

/// How far a search is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) runs: Vec<Progress>,
    /// Whether the lease of an evaluation has run out.
    pub(crate) has_expired: bool,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) id: i64,
    pub(crate) budget: u64,
    pub(crate) most_proposed: u64,
    pub(crate) proposed: u64,
    pub(crate) spent: u64,
    pub(crate) finished: u64,
}

impl Progress {
    pub(crate) fn is_spent(&self) -> bool {
        self.spent >= self.budget || self.proposed >= self.most_proposed
    }
}

/// What came of a candidate, as the history of its run needs it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) graph: String,
    pub(crate) key: Key,
    /// Whether it has an evaluation, or was rejected for its structure before.
    pub(crate) is_judged: bool,
    pub(crate) verdict: Verdict,
}

/// A connection to the database of a search. Where it breaks, for instance since a server is started anew, it
/// is made again and what was under way is repeated.
pub struct Store {
    place: String,
    connection: Connection,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.place)
    }
}

impl Store {
    /// Opens the database: a `postgres://` URL, or the path of a SQLite file, with or without `sqlite:`
    /// before it. A missing file and missing tables are made, older tables brought up to date.
    ///
    /// # Errors
    /// There is no such database, or it is from a newer version.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_at(Place::parse(url)?, true)
    }

    /// Opens the database as [`Store::open`] does, but makes none: to look at a search leaves nothing behind.
    ///
    /// # Errors
    /// There is no such database, there is no search in it, or it is from a newer version.
    pub fn open_existing(url: &str) -> Result<Self, StoreError> {
        Self::open_at(Place::parse(url)?, false)
    }

    fn open_at(place: Place, makes_it: bool) -> Result<Self, StoreError> {
        let name = place.to_string();
        Self::with(name, Connection::new(Box::new(move || place.connect(makes_it))), makes_it)
    }

    fn with(place: String, mut connection: Connection, makes_tables: bool) -> Result<Self, StoreError> {
        migration::bring_up_to_date(&mut connection, makes_tables).map_err(|error| match error {
            StoreError::Lost(problem) => StoreError::unreachable(&place, &problem),
            other => other,
        })?;
        connection.patience = connection::PATIENCE;
        Ok(Self { place, connection })
    }

    /// From now on nothing is tried again where the connection breaks; the next time something is asked, it is made
    /// again.
    pub(crate) fn be_impatient(&mut self) {
        self.connection.patience = Duration::ZERO;
    }

    /// How often the connection was made. What was known of the database before may not hold of a server that was
    /// started anew: one that does not write through may lose its last moments.
    pub(crate) fn connections(&self) -> u64 {
        self.connection.made()
    }

    /// Begins a search, or goes on with the one that is there if it has this configuration. `fingerprint`
    /// tells configurations apart; `config` is kept for people.
    ///
    /// # Errors
    /// The database holds another search, or one with other canonical keys.
    pub fn begin_search(&mut self, fingerprint: &str, config: &str, runs: &[Run]) -> Result<(), StoreError> {
        let (place, keys) = (&self.place, normact_egraph::version());
        self.connection.transaction(|database| {
            database.lock_schema()?;
            if let Some(known) = database.query("SELECT fingerprint, config, keys FROM search", &[])?.first() {
                if known.text(0)? != fingerprint {
                    let config = known.text(1)?.to_owned();
                    return Err(StoreError::OtherSearch { place: place.clone(), config });
                }
                if known.text(2)? != keys {
                    let (found, known) = (known.text(2)?.to_owned(), keys.to_owned());
                    return Err(StoreError::OtherKeys { place: place.clone(), found, known });
                }
                return Ok(());
            }
            let sql = "INSERT INTO search (fingerprint, config, keys, begun_at) VALUES ($1, $2, $3, {now})";
            database.execute(sql, &[fingerprint.into(), config.into(), keys.into()])?;
            for run in runs {
                let sql = "INSERT INTO runs (id, strategy, seed, budget, most_proposed, proposed, spent, finished) \
                           VALUES ($1, $2, $3, $4, $5, 0, 0, 0)";
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                let values = [
                    run.id.into(),
                    run.strategy.as_str().into(),
                    (run.seed as i64).into(),
                    count(run.budget).into(),
                    count(run.proposals).into(),
                ];
                database.execute(sql, &values)?;
            }
            Ok(())
        })
    }

    /// The configuration that the search was begun with.
    ///
    /// # Errors
    /// The database holds no search.
    pub fn config(&mut self) -> Result<String, StoreError> {
        let rows = self.connection.query("SELECT config FROM search", &[])?;
        rows.first().ok_or(StoreError::NoSearch)?.text(0).map(str::to_owned)
    }

    /// What tells the search from others, as it was begun.
    ///
    /// # Errors
    /// The database holds no search.
    pub fn fingerprint(&mut self) -> Result<String, StoreError> {
        let rows = self.connection.query("SELECT fingerprint FROM search", &[])?;
        rows.first().ok_or(StoreError::NoSearch)?.text(0).map(str::to_owned)
    }

    /// The runs of the search.
    ///
    /// # Errors
    /// The database fails.
    pub fn runs(&mut self) -> Result<Vec<Run>, StoreError> {
        let sql = "SELECT id, strategy, seed, budget, most_proposed FROM runs ORDER BY id";
        let run = |row: &Row| {
            Ok(Run {
                id: row.integer(0)?,
                strategy: row.text(1)?.to_owned(),
                seed: row.integer(2)? as u64,
                budget: row.integer(3)? as u64,
                proposals: row.integer(4)? as u64,
            })
        };
        self.connection.query(sql, &[])?.iter().map(run).collect()
    }

    pub(crate) fn state(&mut self) -> Result<State, StoreError> {
        let sql = "SELECT id, budget, most_proposed, proposed, spent, finished, \
                   (SELECT count(*) FROM evaluations WHERE state = 'leased' AND lease_until < {now}) \
                   FROM runs ORDER BY id";
        let mut state = State { runs: vec![], has_expired: false };
        for row in self.connection.query(sql, &[])? {
            let count = |column| row.integer(column).map(|count| count as u64);
            let [budget, most_proposed, proposed, spent, finished] =
                [count(1)?, count(2)?, count(3)?, count(4)?, count(5)?];
            state.runs.push(Progress { id: row.integer(0)?, budget, most_proposed, proposed, spent, finished });
            state.has_expired = row.integer(6)? > 0;
        }
        Ok(state)
    }

    /// The verdicts of a run after the `after`-th and up to the `last`-th, in the order in which they came.
    pub(crate) fn told(&mut self, run: i64, after: u64, last: u64) -> Result<Vec<Told>, StoreError> {
        let sql = "SELECT number, graph, key, judged, scores, reason, detail FROM candidates \
                   WHERE run = $1 AND finish > $2 AND finish <= $3 ORDER BY finish";
        let told = |row: &Row| {
            let verdict = rows::verdict(row, 4)?;
            Ok(Told {
                number: row.integer(0)? as u64,
                graph: row.text(1)?.to_owned(),
                key: rows::key(row.text(2)?)?,
                is_judged: row.integer(3)? != 0,
                verdict: verdict.ok_or_else(|| StoreError::damaged("a verdict has its place and says nothing"))?,
            })
        };
        self.connection
            .query(sql, &[run.into(), (after as i64).into(), (last as i64).into()])?
            .iter()
            .map(told)
            .collect()
    }

    /// The keys of those candidates of a run, from one number to below another, that have an evaluation.
    pub(crate) fn met(&mut self, run: i64, from: u64, below: u64) -> Result<Vec<Key>, StoreError> {
        let sql = "SELECT key FROM candidates WHERE run = $1 AND number >= $2 AND number < $3 AND judged = 1";
        let rows = self.connection.query(sql, &[run.into(), (from as i64).into(), (below as i64).into()])?;
        rows.iter().map(|row| rows::key(row.text(0)?)).collect()
    }

    /// The candidates of a run whose verdicts came after the `after`-th, in the order of verdicts.
    ///
    /// # Errors
    /// The database fails.
    pub fn finished(&mut self, run: i64, after: u64) -> Result<Vec<Candidate>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM candidates WHERE run = $1 AND finish > $2 ORDER BY finish");
        self.connection.query(&sql, &[run.into(), (after as i64).into()])?.iter().map(candidate).collect()
    }

    /// Every candidate, by run and number.
    ///
    /// # Errors
    /// The database fails.
    pub fn candidates(&mut self) -> Result<Vec<Candidate>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM candidates ORDER BY run, number");
        self.connection.query(&sql, &[])?.iter().map(candidate).collect()
    }

    /// Every evaluation, by key and protocol.
    ///
    /// # Errors
    /// The database fails.
    pub fn evaluations(&mut self) -> Result<Vec<Evaluation>, StoreError> {
        let sql = "SELECT key, protocol, state, attempts, failures, error FROM evaluations ORDER BY key, protocol";
        let evaluation = |row: &Row| {
            Ok(Evaluation {
                key: row.text(0)?.to_owned(),
                protocol: protocol(row.text(1)?)?,
                is_done: row.text(2)? == "done",
                attempts: row.integer(3)? as u64,
                failures: row.integer(4)? as u64,
                error: row.optional_text(5)?.map(str::to_owned),
            })
        };
        self.connection.query(sql, &[])?.iter().map(evaluation).collect()
    }

    /// Whether every budget is spent and every verdict is known.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_complete(&mut self) -> Result<bool, StoreError> {
        Ok(self.state()?.runs.iter().all(Progress::is_spent) && !self.anything_waits()?)
    }

    /// Whether any candidate waits for its verdict.
    pub(crate) fn anything_waits(&mut self) -> Result<bool, StoreError> {
        let sql = "SELECT number FROM candidates WHERE state = 'waiting' LIMIT 1";
        Ok(!self.connection.query(sql, &[])?.is_empty())
    }
}
