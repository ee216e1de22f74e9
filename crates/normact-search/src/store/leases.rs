//! Leases: who judges what, and where verdicts go.
//!
//! A lease is a token in the row of an evaluation. Everything here may be done twice, as happens where the reply
//! to a commit is lost: what has the token of this lease was done by this lease.

use super::database::Database;
use super::rows::{columns, protocol, state};
use super::{Store, StoreError};
use crate::fitness::{Protocol, Verdict};

/// What a lease is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lease {
    /// Who takes it.
    pub(crate) worker: String,
    /// A name that no other lease has.
    pub(crate) token: String,
    /// How long it lasts if nobody prolongs it.
    pub(crate) seconds: f64,
}

/// An evaluation that a worker has leased.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) key: String,
    pub(crate) protocol: Protocol,
    pub(crate) graph: String,
    pub(crate) seed: u64,
    pub(crate) token: String,
    /// How many workers have taken it, this one included.
    pub(crate) attempts: u64,
    /// How many of them could not judge it, and why the last one could not.
    pub(crate) failures: u64,
    pub(crate) error: Option<String>,
}

impl Task {
    /// How many workers took it and were not heard of again.
    pub(crate) fn deaths(&self) -> u64 {
        self.attempts.saturating_sub(1 + self.failures)
    }
}

impl Store {
    /// Makes a worker known. Leases of workers of the same machine whose process is no more end at once.
    pub(crate) fn register(
        &mut self,
        worker: &str,
        host: &str,
        process: u32,
        is_alive: impl Fn(u32) -> bool,
    ) -> Result<(), StoreError> {
        self.connection.transaction(|database| {
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

    /// Notes that a worker is alive.
    pub(crate) fn is_seen(&mut self, worker: &str) -> Result<(), StoreError> {
        let sql = "UPDATE workers SET seen_at = {now} WHERE id = $1";
        self.connection.execute(sql, &[worker.into()]).map(drop)
    }

    /// Forgets a worker that has ended and holds no lease.
    pub(crate) fn leave(&mut self, worker: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM workers WHERE id = $1", &[worker.into()]).map(drop)
    }

    /// Takes over an evaluation whose lease has run out.
    pub(crate) fn take_over(&mut self, lease: &Lease) -> Result<Option<Task>, StoreError> {
        self.connection.transaction(|database| {
            if let Some(task) = task_of(database, &lease.token)? {
                return Ok(Some(task));
            }
            let sql = "SELECT key, protocol FROM evaluations WHERE state = 'leased' AND lease_until < {now} \
                       ORDER BY lease_until, key LIMIT 1 {take}";
            let rows = database.query(sql, &[])?;
            let Some(row) = rows.first() else { return Ok(None) };
            let sql = "UPDATE evaluations SET token = $1, worker = $2, lease_until = {now} + $3, \
                       attempts = attempts + 1 WHERE key = $4 AND protocol = $5";
            let values = [
                lease.token.as_str().into(),
                lease.worker.as_str().into(),
                lease.seconds.into(),
                row.text(0)?.into(),
                row.text(1)?.into(),
            ];
            database.execute(sql, &values)?;
            task_of(database, &lease.token)
        })
    }

    /// Ends an evaluation and gives its verdict to every candidate that waits for it. Tells whether the
    /// lease was still held; otherwise nothing is changed.
    pub(crate) fn complete(&mut self, task: &Task, verdict: &Verdict, seconds: f64) -> Result<bool, StoreError> {
        self.connection.transaction(|database| {
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
            if database.execute(sql, &values)? == 0 && !add(database, task, verdict, seconds)? {
                let sql =
                    "SELECT key FROM evaluations WHERE key = $1 AND protocol = $2 AND token = $3 AND state = 'done'";
                return Ok(!database
                    .query(sql, &[key.into(), protocol.into(), task.token.as_str().into()])?
                    .is_empty());
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
        let rows = self.connection.query("SELECT key, protocol FROM evaluations WHERE state = 'leased'", &[])?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    /// Prolongs a lease, of an evaluation or of a training after the search; tells whether it was still held.
    pub(crate) fn prolong(&mut self, token: &str, lease_seconds: f64) -> Result<bool, StoreError> {
        let sql = "UPDATE evaluations SET lease_until = {now} + $1 WHERE token = $2 AND state = 'leased'";
        let is_held = self.connection.execute(sql, &[lease_seconds.into(), token.into()])? > 0;
        Ok(is_held || self.prolong_training(token, lease_seconds)?)
    }

    /// Gives a lease back, as if it had not been taken.
    pub(crate) fn release(&mut self, task: &Task) -> Result<(), StoreError> {
        // Without a token, so that a second time changes nothing.
        let sql = "UPDATE evaluations SET token = '', lease_until = 0.0, attempts = attempts - 1 \
                   WHERE token = $1 AND state = 'leased'";
        self.connection.execute(sql, &[task.token.as_str().into()]).map(drop)
    }

    /// Gives a lease back after an error in judging, which is kept.
    pub(crate) fn fail(&mut self, task: &Task, error: &str) -> Result<(), StoreError> {
        let sql = "UPDATE evaluations SET token = '', lease_until = 0.0, failures = failures + 1, error = $1 \
                   WHERE token = $2 AND state = 'leased'";
        self.connection.execute(sql, &[error.into(), task.token.as_str().into()]).map(drop)
    }
}

/// What is leased with that token.
fn task_of(database: &mut dyn Database, token: &str) -> Result<Option<Task>, StoreError> {
    let sql = "SELECT key, protocol, graph, seed, attempts, failures, error FROM evaluations \
               WHERE token = $1 AND state = 'leased'";
    let rows = database.query(sql, &[token.into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Task {
        key: row.text(0)?.to_owned(),
        protocol: protocol(row.text(1)?)?,
        graph: row.text(2)?.to_owned(),
        seed: row.integer(3)? as u64,
        token: token.to_owned(),
        attempts: row.integer(4)? as u64,
        failures: row.integer(5)? as u64,
        error: row.optional_text(6)?.map(str::to_owned),
    }))
}

/// Adds an evaluation that is done, where there is none: the server has lost its lease. Its candidate will be
/// proposed again and find it.
fn add(database: &mut dyn Database, task: &Task, verdict: &Verdict, seconds: f64) -> Result<bool, StoreError> {
    let (scores, reason, detail) = columns(verdict);
    let sql = "INSERT INTO evaluations (key, protocol, graph, seed, state, token, worker, lease_until, attempts, \
               scores, reason, detail, seconds) \
               VALUES ($1, $2, $3, $4, 'done', $5, '', 0.0, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    let values = [
        task.key.as_str().into(),
        task.protocol.name().into(),
        task.graph.as_str().into(),
        (task.seed as i64).into(),
        task.token.as_str().into(),
        (task.attempts as i64).into(),
        scores.into(),
        reason.into(),
        detail.into(),
        seconds.into(),
    ];
    Ok(database.execute(sql, &values)? > 0)
}

/// Gives a candidate that waits its verdict and its place in the order of verdicts.
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
    let (scores, reason, detail) = columns(verdict);
    // That it has no place yet tells nothing, except to PostgreSQL: whichever index it chooses, it is quick.
    let sql = "UPDATE candidates SET state = $1, scores = $2, reason = $3, detail = $4, seconds = $5, finish = $6, \
               finished_at = {now} WHERE run = $7 AND number = $8 AND finish IS NULL";
    let values = [
        state(verdict).into(),
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
