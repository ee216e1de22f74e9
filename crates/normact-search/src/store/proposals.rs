//! Proposals: what a run brings into the store.
//!
//! Candidates come in batches. A worker draws, from what it knows of a run, candidates that cost nothing, whose
//! structure is rejected or whose verdict the run knows; the batch ends with the first one that may have to be
//! judged. So a transaction is needed for each evaluation, not for each candidate. A batch goes in as a whole or,
//! where another worker was faster, not at all.

use normact_egraph::Key;

use super::database::{Columns, Database, Kind, Value};
use super::leases::{Lease, Task};
use super::rows::{columns, state, verdict};
use super::{Origin, Store, StoreError};
use crate::fitness::{Protocol, Reason, Verdict};

/// The next candidates of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Batch {
    pub(crate) run: i64,
    pub(crate) protocol: Protocol,
    /// The number of the first candidate, which is the count of those before.
    pub(crate) first: u64,
    /// How many verdicts of the run were known when it was drawn.
    pub(crate) finished: u64,
    /// Of these the last alone may be [`Fate::Asked`].
    pub(crate) proposals: Vec<Proposal>,
}

/// A candidate on its way into the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposal {
    pub(crate) origin: Origin,
    pub(crate) graph: String,
    pub(crate) key: Key,
    /// Whether the run has met a layer with this key.
    pub(crate) is_duplicate: bool,
    /// Whether it counts in the budget.
    pub(crate) spends: bool,
    pub(crate) fate: Fate,
}

/// What becomes of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fate {
    /// A look at its structure rejects it, for this.
    Rejected(String),
    /// The run has met the layer, and knows its verdict.
    Known(Verdict),
    /// The evaluations tell: it has its verdict, it waits for it, or it is to be judged with this seed.
    Asked(u64),
}

/// What became of a batch that the store has taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Proposed {
    /// The evaluation of its last candidate, if that is to be done by the proposer.
    pub(crate) task: Option<Task>,
    /// Whether no other worker has added a verdict to the run since the batch was drawn, so that those in the
    /// batch are next to the ones that the proposer knew.
    pub(crate) is_next: bool,
}

/// The columns of a new candidate.
const CANDIDATES: Columns = Columns {
    table: "candidates",
    names: &[
        ("run", Kind::Integer),
        ("number", Kind::Integer),
        ("origin", Kind::Text),
        ("parent", Kind::Integer),
        ("mutations", Kind::Integer),
        ("graph", Kind::Text),
        ("key", Kind::Text),
        ("protocol", Kind::Text),
        ("duplicate", Kind::Integer),
        ("judged", Kind::Integer),
        ("worker", Kind::Text),
        ("proposed_at", Kind::Real),
        ("state", Kind::Text),
        ("scores", Kind::Text),
        ("reason", Kind::Text),
        ("detail", Kind::Text),
        ("seconds", Kind::Real),
        ("finish", Kind::Integer),
        ("finished_at", Kind::Real),
    ],
};

impl Store {
    /// Adds a batch to its run, with the lease of the last candidate's evaluation if nobody has evaluated its key.
    /// Nothing is added where another worker was faster.
    ///
    /// Should the server lose it, nothing that was found out is lost, so nobody waits for the disk.
    pub(crate) fn propose(&mut self, batch: &Batch, lease: &Lease) -> Result<Option<Proposed>, StoreError> {
        self.connection.loose_transaction(|database| propose(database, batch, lease))
    }
}

fn propose(database: &mut dyn Database, batch: &Batch, lease: &Lease) -> Result<Option<Proposed>, StoreError> {
    let answer = match batch.proposals.last() {
        Some(proposal @ Proposal { fate: Fate::Asked(seed), .. }) => {
            Some(ask(database, batch.protocol, proposal, *seed, lease)?)
        }
        _ => None,
    };
    if let Some(Answer::LeasedBefore(task)) = answer {
        return Ok(Some(Proposed { task: Some(task), is_next: false }));
    }
    // The verdict of each candidate, with its cost, if it is known.
    let verdicts: Vec<Option<(Verdict, f64)>> = batch
        .proposals
        .iter()
        .map(|proposal| match (&proposal.fate, &answer) {
            (Fate::Rejected(detail), _) => {
                Some((Verdict::Rejected { reason: Reason::Structure, detail: detail.clone() }, 0.0))
            }
            (Fate::Known(verdict), _) => Some((verdict.clone(), 0.0)),
            (Fate::Asked(_), Some(Answer::Done(verdict, seconds))) => {
                Some((verdict.clone(), if proposal.is_duplicate { 0.0 } else { *seconds }))
            }
            (Fate::Asked(_), _) => None,
        })
        .collect();

    let settled = verdicts.iter().flatten().count() as i64;
    let spent = batch.proposals.iter().filter(|proposal| proposal.spends).count() as i64;
    let sql = "UPDATE runs SET proposed = proposed + $1, spent = spent + $2, finished = finished + $3 \
               WHERE id = $4 AND proposed = $5 RETURNING finished, {now}";
    let values = [
        (batch.proposals.len() as i64).into(),
        spent.into(),
        settled.into(),
        batch.run.into(),
        (batch.first as i64).into(),
    ];
    let rows = database.query(sql, &values)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (finished_before, now) = (row.integer(0)? - settled, row.real(1)?);

    let mut place = finished_before;
    let rows: Vec<Vec<Value>> = batch
        .proposals
        .iter()
        .zip(verdicts)
        .zip(batch.first..)
        .map(|((proposal, verdict), number)| {
            place += i64::from(verdict.is_some());
            row_of(batch, number, proposal, verdict.map(|(verdict, cost)| (verdict, cost, place)), &lease.worker, now)
        })
        .collect();
    database.insert(&CANDIDATES, &rows)?;
    let task = match answer {
        Some(Answer::Leased(task)) => Some(task),
        _ => None,
    };
    Ok(Some(Proposed { task, is_next: finished_before == batch.finished as i64 }))
}

/// What the evaluations say of a key.
enum Answer {
    /// It is new, and leased to the one who asked.
    Leased(Task),
    /// It was leased with this very token: the batch is in the store, and the reply to its commit was lost.
    LeasedBefore(Task),
    /// It has its verdict, which took so many seconds.
    Done(Verdict, f64),
    /// Another worker is judging it.
    Waiting,
}

fn ask(
    database: &mut dyn Database,
    protocol: Protocol,
    proposal: &Proposal,
    seed: u64,
    lease: &Lease,
) -> Result<Answer, StoreError> {
    let key = proposal.key.to_string();
    let task = Task {
        key: key.clone(),
        protocol,
        graph: proposal.graph.clone(),
        seed,
        token: lease.token.clone(),
        attempts: 1,
        failures: 0,
        error: None,
    };
    let sql = "INSERT INTO evaluations (key, protocol, graph, seed, state, token, worker, lease_until, attempts) \
               VALUES ($1, $2, $3, $4, 'leased', $5, $6, {now} + $7, 1) ON CONFLICT DO NOTHING";
    let values = [
        key.as_str().into(),
        protocol.name().into(),
        proposal.graph.as_str().into(),
        (seed as i64).into(),
        lease.token.as_str().into(),
        lease.worker.as_str().into(),
        lease.seconds.into(),
    ];
    if database.execute(sql, &values)? == 1 {
        return Ok(Answer::Leased(task));
    }
    // Locked, so that no verdict comes before the candidate that waits for it is there.
    let sql = "SELECT scores, reason, detail, coalesce(seconds, 0.0), token FROM evaluations \
               WHERE key = $1 AND protocol = $2 {lock}";
    let rows = database.query(sql, &[key.into(), protocol.name().into()])?;
    let row = rows.first().ok_or_else(|| StoreError::damaged("an evaluation has gone"))?;
    Ok(match verdict(row, 0)? {
        Some(verdict) => Answer::Done(verdict, row.real(3)?),
        None if row.text(4)? == lease.token => Answer::LeasedBefore(task),
        None => Answer::Waiting,
    })
}

/// The row of a candidate, with its verdict, what that cost, and its place in the order of verdicts.
fn row_of(
    batch: &Batch,
    number: u64,
    proposal: &Proposal,
    verdict: Option<(Verdict, f64, i64)>,
    worker: &str,
    now: f64,
) -> Vec<Value> {
    let (origin, parent, mutations) = match proposal.origin {
        Origin::Fresh => ("fresh", None, 0),
        Origin::Child { parent, mutations } => ("child", Some(parent as i64), mutations as i64),
        Origin::Fixed => ("fixed", None, 0),
    };
    let mut row = vec![
        batch.run.into(),
        (number as i64).into(),
        origin.into(),
        parent.into(),
        mutations.into(),
        proposal.graph.as_str().into(),
        proposal.key.to_string().into(),
        batch.protocol.name().into(),
        i64::from(proposal.is_duplicate).into(),
        i64::from(!matches!(proposal.fate, Fate::Rejected(_))).into(),
        worker.into(),
        now.into(),
    ];
    row.extend(match verdict {
        Some((verdict, cost, place)) => {
            let (scores, reason, detail) = columns(&verdict);
            [state(&verdict).into(), scores.into(), reason.into(), detail.into(), cost.into(), place.into(), now.into()]
        }
        None => ["waiting".into(), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, Value::Null],
    });
    row
}
