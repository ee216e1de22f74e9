//! What the store holds, and how it is read from the rows of its tables.

use normact_egraph::Key;

use super::StoreError;
use super::database::{Row, Value};
use crate::fitness::{Protocol, Reason, Verdict};

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
    /// How many candidates it may propose, whatever is left of the budget: a space with few layers has nothing
    /// new to offer in the end.
    pub proposals: u64,
}

impl Run {
    /// How many candidates a run proposes for each layer of its budget, where nothing else is said.
    pub const PROPOSALS_PER_LAYER: u64 = 100;
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
    /// How many of them could not judge it, for an error.
    pub failures: u64,
    /// The last of these errors.
    pub error: Option<String>,
}

/// A verdict as the columns `scores`, `reason` and `detail`.
pub(super) fn columns(verdict: &Verdict) -> (Option<String>, Option<&'static str>, Option<String>) {
    match verdict {
        // The shortest digits that give the same number back.
        Verdict::Scored(scores) => {
            (Some(scores.iter().map(|score| format!("{score:?}")).collect::<Vec<_>>().join(" ")), None, None)
        }
        Verdict::Rejected { reason, detail } => (None, Some(reason.name()), Some(detail.clone())),
    }
}

/// The state of a candidate that has its verdict.
pub(super) fn state(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Scored(_) => "scored",
        Verdict::Rejected { .. } => "rejected",
    }
}

/// The verdict in three columns from `first` on, if there is one.
pub(super) fn verdict(row: &Row, first: usize) -> Result<Option<Verdict>, StoreError> {
    if let Some(scores) = row.optional_text(first)? {
        let scores: Result<Vec<f64>, _> = scores.split_whitespace().map(str::parse).collect();
        let scores = scores.map_err(|error| StoreError::damaged(format!("scores that are no numbers: {error}")))?;
        return Ok(Some(Verdict::Scored(scores)));
    }
    let Some(name) = row.optional_text(first + 1)? else { return Ok(None) };
    let reason = Reason::by_name(name).ok_or_else(|| StoreError::damaged(format!("the reason `{name}`")))?;
    Ok(Some(Verdict::Rejected { reason, detail: row.optional_text(first + 2)?.unwrap_or_default().to_owned() }))
}

pub(super) fn key(text: &str) -> Result<Key, StoreError> {
    text.parse().map_err(|_| StoreError::damaged(format!("the key `{text}`")))
}

pub(super) fn protocol(name: &str) -> Result<Protocol, StoreError> {
    [Protocol::Tested, Protocol::Untested]
        .into_iter()
        .find(|protocol| protocol.name() == name)
        .ok_or_else(|| StoreError::damaged(format!("the protocol `{name}`")))
}

pub(super) const COLUMNS: &str = "run, number, origin, parent, mutations, graph, key, duplicate, scores, reason, detail, \
                       coalesce(seconds, 0.0), finished_at, finish";

pub(super) fn candidate(row: &Row) -> Result<Candidate, StoreError> {
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
