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

mod database;
mod measurements;
mod postgresql;
mod sqlite;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fitness::{Protocol, Reason, Verdict};
use database::{Database, Row, Value};
pub(crate) use measurements::TrainingState;
pub use measurements::{Measurement, Training};

/// The scripts that bring a database from one version to the next.
const MIGRATIONS: &[&str] =
    &[include_str!("schema.sql"), include_str!("measurements.sql"), include_str!("measurement_leases.sql")];

/// After so many workers have died over an evaluation, the layer is taken to be the reason.
const MAX_ATTEMPTS: i64 = 5;

/// A run proposes at most so many candidates for each layer of its budget: a space with few layers has
/// nothing new to offer in the end.
const MAX_PROPOSALS: i64 = 100;

/// How long a lost connection is tried to make again, which a server needs to be started anew.
const PATIENCE: Duration = Duration::from_secs(300);

/// The pause between two attempts at a connection.
const BETWEEN_CONNECTIONS: Duration = Duration::from_millis(500);

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

    fn unreachable(place: impl fmt::Display, problem: &impl fmt::Display) -> Self {
        StoreError::Unreachable { place: place.to_string(), problem: problem.to_string() }
    }

    fn damaged(problem: impl Into<String>) -> Self {
        StoreError::Damaged(problem.into())
    }
}

/// A strategy with its seed and budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its number in the store.
    pub id: i64,
    /// The name of the strategy.
    pub strategy: String,
    /// Decides everything it draws.
    pub seed: u64,
    /// How many different layers it may have judged. Those that are rejected for their structure cost nothing
    /// and are not counted.
    pub budget: u64,
}

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

/// A candidate on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) run: i64,
    pub(crate) number: i64,
    pub(crate) origin: Origin,
    pub(crate) graph: String,
    pub(crate) key: String,
    pub(crate) protocol: Protocol,
    /// The seed of its evaluation, or the reason why there is none.
    pub(crate) judged: Result<u64, (Reason, String)>,
}

/// Where a candidate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Drawn at random.
    Fresh,
    /// Mutated from an earlier candidate of its run.
    Child {
        /// The parent's number.
        parent: u64,
        /// How many mutations were made.
        mutations: u64,
    },
    /// Given with the search.
    Fixed,
}

/// An evaluation that a worker has leased.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) key: String,
    pub(crate) protocol: Protocol,
    pub(crate) graph: String,
    pub(crate) seed: u64,
    pub(crate) token: String,
    pub(crate) attempts: i64,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Proposed {
    /// It is to be evaluated, by the proposer.
    Leased(Task),
    /// Its verdict was known.
    Finished,
    /// Another worker is evaluating its key.
    Waiting,
    /// Another worker proposed a candidate of that number.
    Late,
}

/// A candidate with everything the store knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its run.
    pub run: i64,
    /// Its number in the run, from 0.
    pub number: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// The genotype, or the name of a fixed layer.
    pub graph: String,
    /// Its canonical key.
    pub key: String,
    /// Whether the run had a layer with this key before.
    pub is_duplicate: bool,
    /// The verdict, once there is one.
    pub verdict: Option<Verdict>,
    /// Seconds that judging its layer took, in whichever run that was done; 0 for a duplicate, which its run
    /// has paid for before.
    pub seconds: f64,
    /// When its verdict came, in seconds since 1970.
    pub finished_at: Option<f64>,
    /// Its place in the order of verdicts of its run, from 1.
    pub finish: Option<u64>,
}

/// The one evaluation of a key under a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The key.
    pub key: String,
    /// How the layer is judged.
    pub protocol: Protocol,
    /// Whether there is a verdict.
    pub is_done: bool,
    /// How many workers have taken it.
    pub attempts: u64,
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

    /// Does something with the database, and does it again on a new connection where the connection breaks.
    fn persist<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        loop {
            let result = work(&mut *self.database);
            if !matches!(result, Err(StoreError::Lost(_))) || start.elapsed() >= PATIENCE {
                return result;
            }
            loop {
                match connect(&self.url) {
                    Ok(database) => break self.database = database,
                    Err(_) if start.elapsed() < PATIENCE => std::thread::sleep(BETWEEN_CONNECTIONS),
                    Err(_) => return result,
                }
            }
        }
    }

    /// Runs `work` in a transaction, which is undone where `work` fails.
    fn transaction<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction_if(|database| Ok((work(database)?, true)))
    }

    /// Runs `work` in a transaction, which is undone where `work` fails or says so.
    fn transaction_if<T>(
        &mut self,
        mut work: impl FnMut(&mut dyn Database) -> Result<(T, bool), StoreError>,
    ) -> Result<T, StoreError> {
        self.persist(|database| {
            database.begin()?;
            let result = work(database);
            let end = database.batch(if matches!(result, Ok((_, true))) { "COMMIT" } else { "ROLLBACK" });
            match (result, end) {
                // What went wrong first is what to tell; a database may have rolled back by itself.
                (Err(error), _) => Err(error),
                (Ok((value, _)), Ok(())) => Ok(value),
                (Ok(_), Err(error)) => {
                    // A commit that failed may leave the transaction open.
                    let _ = database.batch("ROLLBACK");
                    Err(error)
                }
            }
        })
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.persist(|database| database.query(sql, values))
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.persist(|database| database.execute(sql, values))
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

    /// What tells the search from others, as it was begun.
    ///
    /// # Errors
    /// The database holds no search.
    pub fn fingerprint(&mut self) -> Result<String, StoreError> {
        let rows = self.query("SELECT fingerprint FROM search", &[])?;
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

    /// Makes a worker known. Leases of workers of the same machine whose process is no more end at once.
    pub(crate) fn register(
        &mut self,
        worker: &str,
        host: &str,
        process: u32,
        is_alive: impl Fn(u32) -> bool,
    ) -> Result<(), StoreError> {
        self.transaction(|database| {
            let known =
                database.query("SELECT id, process FROM workers WHERE host = $1 ORDER BY id", &[host.into()])?;
            for row in &known {
                let (id, process) = (row.text(0)?, u32::try_from(row.integer(1)?).unwrap_or(0));
                if id != worker && !is_alive(process) {
                    let free = "UPDATE evaluations SET lease_until = 0.0 WHERE worker = $1 AND state = 'leased'";
                    database.execute(free, &[id.into()])?;
                    database.execute("DELETE FROM workers WHERE id = $1", &[id.into()])?;
                }
            }
            let sql = "INSERT INTO workers (id, host, process, seen_at) VALUES ($1, $2, $3, {now}) \
                       ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";
            database.execute(sql, &[worker.into(), host.into(), i64::from(process).into()])?;
            Ok(())
        })
    }

    /// Takes over an evaluation whose lease has run out.
    pub(crate) fn take_over(
        &mut self,
        worker: &str,
        token: &str,
        lease_seconds: f64,
    ) -> Result<Option<Task>, StoreError> {
        let sql = "SELECT key, protocol, graph, seed, attempts FROM evaluations \
                   WHERE state = 'leased' AND lease_until < {now} ORDER BY lease_until, key LIMIT 1 {take}";
        // Most often there is none, which a look without a transaction tells.
        if self.query(&sql.replace("{take}", ""), &[])?.is_empty() {
            return Ok(None);
        }
        self.transaction(|database| {
            let rows = database.query(sql, &[])?;
            let Some(row) = rows.first() else { return Ok(None) };
            let task = Task {
                key: row.text(0)?.to_owned(),
                protocol: protocol(row.text(1)?)?,
                graph: row.text(2)?.to_owned(),
                seed: row.integer(3)? as u64,
                token: token.to_owned(),
                attempts: row.integer(4)? + 1,
            };
            let sql = "UPDATE evaluations SET token = $1, worker = $2, lease_until = {now} + $3, attempts = $4 \
                       WHERE key = $5 AND protocol = $6";
            let values = [
                token.into(),
                worker.into(),
                lease_seconds.into(),
                task.attempts.into(),
                task.key.as_str().into(),
                task.protocol.name().into(),
            ];
            database.execute(sql, &values)?;
            Ok(Some(task))
        })
    }

    /// Adds a candidate to its run, with the lease of its evaluation if nobody has evaluated its key.
    pub(crate) fn propose(
        &mut self,
        proposal: &Proposal,
        worker: &str,
        token: &str,
        lease_seconds: f64,
    ) -> Result<Proposed, StoreError> {
        self.transaction_if(|database| {
            let proposed = propose(database, proposal, worker, token, lease_seconds)?;
            let is_kept = proposed != Proposed::Late;
            Ok((proposed, is_kept))
        })
    }

    /// Ends an evaluation and gives its verdict to every candidate that waits for it. Tells whether the
    /// lease was still held; otherwise nothing is changed.
    pub(crate) fn complete(&mut self, task: &Task, verdict: &Verdict, seconds: f64) -> Result<bool, StoreError> {
        self.transaction(|database| {
            let (scores, reason, detail) = columns(verdict);
            let sql = "UPDATE evaluations SET state = 'done', scores = $1, reason = $2, detail = $3, seconds = $4 \
                       WHERE key = $5 AND protocol = $6 AND token = $7 AND state = 'leased'";
            let (key, protocol) = (task.key.as_str(), task.protocol.name());
            let values = [
                scores.into(),
                reason.into(),
                detail.into(),
                seconds.into(),
                key.into(),
                protocol.into(),
                task.token.as_str().into(),
            ];
            if database.execute(sql, &values)? == 0 {
                return Ok(false);
            }
            let sql = "SELECT run, number, duplicate FROM candidates \
                       WHERE key = $1 AND protocol = $2 AND state = 'waiting' ORDER BY run, number";
            for row in database.query(sql, &[key.into(), protocol.into()])?.iter() {
                let cost = if row.integer(2)? == 0 { seconds } else { 0.0 };
                finish(database, row.integer(0)?, row.integer(1)?, verdict, cost)?;
            }
            Ok(true)
        })
    }

    /// What is being evaluated, or was when its worker died: keys with their protocols.
    pub(crate) fn leased(&mut self) -> Result<Vec<(String, String)>, StoreError> {
        let rows = self.query("SELECT key, protocol FROM evaluations WHERE state = 'leased'", &[])?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    /// Whether too many workers have died over it.
    pub(crate) fn is_hopeless(task: &Task) -> bool {
        task.attempts > MAX_ATTEMPTS
    }

    /// Prolongs a lease; tells whether it was still held.
    pub(crate) fn prolong(&mut self, token: &str, lease_seconds: f64) -> Result<bool, StoreError> {
        let sql = "UPDATE evaluations SET lease_until = {now} + $1 WHERE token = $2 AND state = 'leased'";
        Ok(self.execute(sql, &[lease_seconds.into(), token.into()])? > 0)
    }

    /// Gives a lease back.
    pub(crate) fn release(&mut self, task: &Task) -> Result<(), StoreError> {
        let sql = "UPDATE evaluations SET lease_until = 0.0, attempts = attempts - 1 \
                   WHERE token = $1 AND state = 'leased'";
        self.execute(sql, &[task.token.as_str().into()]).map(drop)
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

/// A connection of the kind that the URL says.
fn connect(url: &str) -> Result<Box<dyn Database>, StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Box::new(postgresql::PostgresDatabase::open(url)?));
    }
    Ok(Box::new(sqlite::SqliteDatabase::open(Path::new(url.strip_prefix("sqlite:").unwrap_or(url)))?))
}

fn migrate(database: &mut dyn Database) -> Result<(), StoreError> {
    database.lock_schema()?;
    database.batch("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")?;
    let rows = database.query("SELECT version FROM schema_version", &[])?;
    let found = rows.first().map(|row| row.integer(0)).transpose()?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for script in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        database.batch(script)?;
    }
    if found != known {
        database.execute("DELETE FROM schema_version", &[])?;
        database.execute("INSERT INTO schema_version (version) VALUES ($1)", &[known.into()])?;
    }
    Ok(())
}

fn propose(
    database: &mut dyn Database,
    proposal: &Proposal,
    worker: &str,
    token: &str,
    lease_seconds: f64,
) -> Result<Proposed, StoreError> {
    let (key, protocol_name) = (proposal.key.as_str(), proposal.protocol.name());
    // The verdict with its cost, if it is known; otherwise whether the evaluation is this worker's.
    let mut leased = None;
    let known = match &proposal.judged {
        Err((reason, detail)) => Some((Verdict::Rejected { reason: *reason, detail: detail.clone() }, 0.0)),
        Ok(seed) => {
            let sql = "INSERT INTO evaluations (key, protocol, graph, seed, state, token, worker, lease_until, attempts) \
                       VALUES ($1, $2, $3, $4, 'leased', $5, $6, {now} + $7, 1) ON CONFLICT DO NOTHING";
            let values = [
                key.into(),
                protocol_name.into(),
                proposal.graph.as_str().into(),
                (*seed as i64).into(),
                token.into(),
                worker.into(),
                lease_seconds.into(),
            ];
            if database.execute(sql, &values)? == 1 {
                leased = Some(Task {
                    key: proposal.key.clone(),
                    protocol: proposal.protocol,
                    graph: proposal.graph.clone(),
                    seed: *seed,
                    token: token.to_owned(),
                    attempts: 1,
                });
                None
            } else {
                let sql = "SELECT scores, reason, detail, coalesce(seconds, 0.0) FROM evaluations \
                           WHERE key = $1 AND protocol = $2 {lock}";
                let rows = database.query(sql, &[key.into(), protocol_name.into()])?;
                let row = rows.first().ok_or_else(|| StoreError::damaged("an evaluation has gone"))?;
                let seconds = row.real(3)?;
                verdict(row, 0)?.map(|verdict| (verdict, seconds))
            }
        }
    };

    let sql = "SELECT budget, proposed, spent, finished FROM runs WHERE id = $1 {lock}";
    let rows = database.query(sql, &[proposal.run.into()])?;
    let row = rows.first().ok_or(StoreError::NoSearch)?;
    let [budget, proposed, spent, finished] = [row.integer(0)?, row.integer(1)?, row.integer(2)?, row.integer(3)?];
    let progress = Progress { id: proposal.run, budget, proposed, spent, finished };
    if proposed != proposal.number || progress.is_spent() {
        return Ok(Proposed::Late);
    }
    // A spelling that was rejected for its structure says nothing of an equal layer that is not.
    let same = "SELECT number FROM candidates \
                WHERE run = $1 AND key = $2 AND (reason IS NULL OR reason <> 'structure') LIMIT 1";
    let is_duplicate = !database.query(same, &[proposal.run.into(), key.into()])?.is_empty();
    let (origin, parent, mutations) = match proposal.origin {
        Origin::Fresh => ("fresh", None, 0),
        Origin::Child { parent, mutations } => ("child", Some(parent as i64), mutations as i64),
        Origin::Fixed => ("fixed", None, 0),
    };
    let sql = "INSERT INTO candidates (run, number, origin, parent, mutations, graph, key, protocol, duplicate, state, \
               worker, proposed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'waiting', $10, {now})";
    let values = [
        proposal.run.into(),
        proposal.number.into(),
        origin.into(),
        parent.into(),
        mutations.into(),
        proposal.graph.as_str().into(),
        key.into(),
        protocol_name.into(),
        i64::from(is_duplicate).into(),
        worker.into(),
    ];
    database.execute(sql, &values)?;
    let sql = "UPDATE runs SET proposed = proposed + 1, spent = spent + $1 WHERE id = $2";
    // Given layers are as many as the budget says, also where two of them are equal.
    let spends = proposal.origin == Origin::Fixed || (!is_duplicate && proposal.judged.is_ok());
    database.execute(sql, &[i64::from(spends).into(), proposal.run.into()])?;
    if let Some((verdict, seconds)) = known {
        let cost = if is_duplicate { 0.0 } else { seconds };
        finish(database, proposal.run, proposal.number, &verdict, cost)?;
        return Ok(Proposed::Finished);
    }
    Ok(leased.map_or(Proposed::Waiting, Proposed::Leased))
}

/// Gives a candidate its verdict and its place in the order of verdicts.
fn finish(
    database: &mut dyn Database,
    run: i64,
    number: i64,
    verdict: &Verdict,
    seconds: f64,
) -> Result<(), StoreError> {
    let rows =
        database.query("UPDATE runs SET finished = finished + 1 WHERE id = $1 RETURNING finished", &[run.into()])?;
    let place = rows.first().ok_or(StoreError::NoSearch)?.integer(0)?;
    let state = match verdict {
        Verdict::Scored(_) => "scored",
        Verdict::Rejected { .. } => "rejected",
    };
    let (scores, reason, detail) = columns(verdict);
    let sql = "UPDATE candidates SET state = $1, scores = $2, reason = $3, detail = $4, seconds = $5, finish = $6, \
               finished_at = {now} WHERE run = $7 AND number = $8";
    let values = [
        state.into(),
        scores.into(),
        reason.into(),
        detail.into(),
        seconds.into(),
        place.into(),
        run.into(),
        number.into(),
    ];
    database.execute(sql, &values).map(drop)
}

/// A verdict as the columns `scores`, `reason` and `detail`.
fn columns(verdict: &Verdict) -> (Option<String>, Option<&'static str>, Option<String>) {
    match verdict {
        // The shortest digits that give the same number back.
        Verdict::Scored(scores) => {
            (Some(scores.iter().map(|score| format!("{score:?}")).collect::<Vec<_>>().join(" ")), None, None)
        }
        Verdict::Rejected { reason, detail } => (None, Some(reason.name()), Some(detail.clone())),
    }
}

/// The verdict in three columns from `first` on, if there is one.
fn verdict(row: &Row, first: usize) -> Result<Option<Verdict>, StoreError> {
    if let Some(scores) = row.optional_text(first)? {
        let scores: Result<Vec<f64>, _> = scores.split_whitespace().map(str::parse).collect();
        let scores = scores.map_err(|error| StoreError::damaged(format!("scores that are no numbers: {error}")))?;
        return Ok(Some(Verdict::Scored(scores)));
    }
    let Some(name) = row.optional_text(first + 1)? else { return Ok(None) };
    let reason = Reason::by_name(name).ok_or_else(|| StoreError::damaged(format!("the reason `{name}`")))?;
    Ok(Some(Verdict::Rejected { reason, detail: row.optional_text(first + 2)?.unwrap_or_default().to_owned() }))
}

fn protocol(name: &str) -> Result<Protocol, StoreError> {
    [Protocol::Tested, Protocol::Untested]
        .into_iter()
        .find(|protocol| protocol.name() == name)
        .ok_or_else(|| StoreError::damaged(format!("the protocol `{name}`")))
}

const COLUMNS: &str = "run, number, origin, parent, mutations, graph, key, duplicate, scores, reason, detail, \
                       coalesce(seconds, 0.0), finished_at, finish";

fn candidate(row: &Row) -> Result<Candidate, StoreError> {
    let origin = match row.text(2)? {
        "fresh" => Origin::Fresh,
        "fixed" => Origin::Fixed,
        _ => Origin::Child { parent: row.optional_integer(3)?.unwrap_or(0) as u64, mutations: row.integer(4)? as u64 },
    };
    Ok(Candidate {
        run: row.integer(0)?,
        number: row.integer(1)? as u64,
        origin,
        graph: row.text(5)?.to_owned(),
        key: row.text(6)?.to_owned(),
        is_duplicate: row.integer(7)? != 0,
        verdict: verdict(row, 8)?,
        seconds: row.real(11)?,
        finished_at: if row.0[12] == Value::Null { None } else { Some(row.real(12)?) },
        finish: row.optional_integer(13)?.map(|place| place as u64),
    })
}
