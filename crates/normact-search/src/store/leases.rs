//! Proposals and leases: who judges what, and where verdicts go.

use super::database::Database;
use super::rows::{columns, protocol, verdict};
use super::{Origin, Progress, Store, StoreError};
use crate::fitness::{Protocol, Reason, Verdict};

/// After so many workers have died over an evaluation, the layer is taken to be the reason.
const MAX_ATTEMPTS: i64 = 5;

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

impl Store {
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
