//! What a worker knows of a run: the layers it has met, and those that can have children.
//!
//! It depends on nothing but how many candidates the run has proposed and how many verdicts have come, so it is
//! the same whether a worker was there all the time or reads it from the store.

use std::collections::HashMap;

use normact_egraph::Key;

use crate::fitness::Verdict;
use crate::store::{Batch, Fate, Progress, Proposal, Store, StoreError};

#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) proposed: u64,
    pub(crate) spent: u64,
    pub(crate) finished: u64,
    /// The layers that were not rejected for their structure, with their verdicts once they are known.
    met: HashMap<Key, Option<Verdict>>,
    parents: Parents,
}

/// Candidates with scores, in the order of their verdicts.
#[derive(Debug, Default)]
pub(crate) struct Parents {
    pub(crate) numbers: Vec<u64>,
    pub(crate) scores: Vec<Vec<f64>>,
    pub(crate) graphs: Vec<String>,
}

impl Parents {
    fn add(&mut self, number: u64, graph: &str, scores: &[f64]) {
        self.numbers.push(number);
        self.scores.push(scores.to_vec());
        self.graphs.push(graph.to_owned());
    }

    fn keep_last(&mut self, count: usize) {
        let superfluous = self.numbers.len().saturating_sub(count);
        self.numbers.drain(..superfluous);
        self.scores.drain(..superfluous);
        self.graphs.drain(..superfluous);
    }

    fn truncate(&mut self, count: usize) {
        self.numbers.truncate(count);
        self.scores.truncate(count);
        self.graphs.truncate(count);
    }
}

impl History {
    /// Reads what has come since. Of those that can have children it keeps `population`, the most recent ones,
    /// and some more.
    pub(crate) fn catch_up(
        &mut self,
        store: &mut Store,
        progress: &Progress,
        population: usize,
    ) -> Result<(), StoreError> {
        if self.proposed < progress.proposed {
            for key in store.met(progress.id, self.proposed, progress.proposed)? {
                self.met.entry(key).or_insert(None);
            }
        }
        if self.finished < progress.finished {
            for told in store.told(progress.id, self.finished, progress.finished)? {
                if let Verdict::Scored(scores) = &told.verdict {
                    self.parents.add(told.number, &told.graph, scores);
                }
                if told.is_judged {
                    self.met.insert(told.key, Some(told.verdict));
                }
            }
        }
        (self.proposed, self.spent, self.finished) = (progress.proposed, progress.spent, progress.finished);
        // Not each time, which would move all of them for one.
        if self.parents.numbers.len() / 2 > population {
            self.parents.keep_last(population);
        }
        Ok(())
    }

    /// Those that can have children, and older ones.
    pub(crate) fn parents(&self) -> &Parents {
        &self.parents
    }

    /// What the run knows of a layer: nothing if it has not met it, else its verdict if that has come.
    pub(crate) fn of(&self, key: Key) -> Option<Option<&Verdict>> {
        self.met.get(&key).map(Option::as_ref)
    }

    /// Adds what the run proposes next.
    pub(crate) fn add(&mut self, proposal: &Proposal) {
        match &proposal.fate {
            Fate::Rejected(_) => self.finished += 1,
            Fate::Known(verdict) => {
                self.finished += 1;
                if let Verdict::Scored(scores) = verdict {
                    self.parents.add(self.proposed, &proposal.graph, scores);
                }
            }
            Fate::Asked(_) => {
                self.met.entry(proposal.key).or_insert(None);
            }
        }
        self.proposed += 1;
        self.spent += u64::from(proposal.spends);
    }

    /// Takes back what the store has not taken.
    pub(crate) fn take_back(&mut self, batch: &Batch) {
        for proposal in batch.proposals.iter().rev() {
            self.proposed -= 1;
            self.spent -= u64::from(proposal.spends);
            match &proposal.fate {
                Fate::Rejected(_) => self.finished -= 1,
                Fate::Known(verdict) => {
                    self.finished -= 1;
                    if matches!(verdict, Verdict::Scored(_)) {
                        self.parents.truncate(self.parents.numbers.len() - 1);
                    }
                }
                Fate::Asked(_) if proposal.is_duplicate => {}
                Fate::Asked(_) => drop(self.met.remove(&proposal.key)),
            }
        }
    }
}
