//! A worker: it proposes layers, judges the one that needs it, stores the verdict, and begins again until every
//! budget is spent.
//!
//! The search has no generations and no master. Whoever is free proposes the next candidates of the run that
//! has spent the least of its budget, from the verdicts that are known at that moment; a layer that is being
//! judged elsewhere keeps nobody waiting. What candidate `n` of a run draws depends on the run's seed, on `n`,
//! and on the verdicts before it alone. So one worker writes the same history each time, wherever it was
//! stopped and started again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fitness::{Fitness, Reason, Verdict};
use crate::heart::Heart;
use crate::notice::Notice;
use crate::options::Options;
use crate::process::{host, is_alive, token, worker_id};
use crate::proposer::Proposer;
use crate::store::{Lease, Progress, Store, StoreError, Task};

/// How a worker's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every budget is spent and every verdict is known.
    Complete,
    /// The worker was asked to stop.
    Stopped,
}

/// Why a search stops before its end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer cannot be judged.
    #[error("{problem}")]
    Fitness {
        /// What the judge says.
        problem: String,
        /// The genotype, or the name of a fixed layer.
        graph: String,
        /// How often judging it has failed.
        failures: u64,
        /// How often it may before the layer is passed over; 0 for any number.
        max_failures: u64,
    },
}

impl SearchError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        let (graph, left) = match self {
            SearchError::Store(error) => return error.help().map(str::to_owned),
            SearchError::Fitness { graph, max_failures: 0, .. } => (graph, None),
            SearchError::Fitness { graph, failures, max_failures, .. } => {
                (graph, Some(max_failures.saturating_sub(*failures)))
            }
        };
        Some(match left {
            None => format!("mend it and start the search again, with this layer: {graph}"),
            Some(0) => format!("started again, the search passes over this layer: {graph}"),
            Some(left) => format!(
                "mend it and start the search again; after {left} more such errors it passes over this layer: {graph}"
            ),
        })
    }
}

/// How long a worker with nothing to do waits before it looks again.
pub(crate) const IDLE: Duration = Duration::from_millis(100);

/// Works on the search in the database at `url` until it is complete, or until `stop` is set. What happens on the
/// way and is no error goes to `notify`, also from another thread.
///
/// # Errors
/// The database or the fitness fails. What was leased is given back.
pub fn work(
    url: &str,
    options: &Options,
    fitness: &mut dyn Fitness,
    stop: &AtomicBool,
    notify: &(dyn Fn(Notice) + Sync),
) -> Result<End, SearchError> {
    work_on(&mut || Store::open_existing(url), options, fitness, stop, notify)
}

pub(crate) fn work_on(
    open: &mut dyn FnMut() -> Result<Store, StoreError>,
    options: &Options,
    fitness: &mut dyn Fitness,
    stop: &AtomicBool,
    notify: &(dyn Fn(Notice) + Sync),
) -> Result<End, SearchError> {
    let (mut store, heart_store) = (open()?, open()?);
    let runs = store.runs()?;
    if runs.is_empty() {
        return Err(StoreError::NoSearch.into());
    }
    let id = worker_id();
    store.register(&id, &host(), std::process::id(), is_alive)?;
    let left_over = if options.is_alone { store.leased()? } else { vec![] };
    std::thread::scope(|scope| {
        let heart = Heart::start(scope, heart_store, id.clone(), options.lease_seconds, notify);
        let connections = store.connections();
        let proposer = Proposer::new(options, runs);
        let mut worker = Worker { store, connections, options, proposer, left_over, id, heart, notify };
        let end = worker.work(fitness, stop)?;
        // What stays are workers that are at work, and those that died.
        worker.store.leave(&worker.id)?;
        Ok(end)
    })
}

struct Worker<'a> {
    store: Store,
    /// How often the store's connection had been made when the proposer began to learn from it.
    connections: u64,
    options: &'a Options,
    proposer: Proposer<'a>,
    /// What was leased when a worker began that is alone.
    left_over: Vec<(String, String)>,
    id: String,
    heart: Heart,
    notify: &'a (dyn Fn(Notice) + Sync),
}

impl Worker<'_> {
    fn work(&mut self, fitness: &mut dyn Fitness, stop: &AtomicBool) -> Result<End, SearchError> {
        while !stop.load(Ordering::Relaxed) {
            let state = self.store.state()?;
            if state.has_expired
                && let Some(task) = self.store.take_over(&self.lease())?
            {
                self.judge(&task, fitness)?;
                continue;
            }
            if self.is_to_wait()? {
                std::thread::sleep(IDLE);
                continue;
            }
            let next = state.runs.iter().filter(|run| !run.is_spent()).min_by(|a, b| {
                // The share of the budget, without rounding.
                (u128::from(a.spent) * u128::from(b.budget)).cmp(&(u128::from(b.spent) * u128::from(a.budget)))
            });
            match next {
                Some(run) => self.advance(run, fitness)?,
                None if self.store.anything_waits()? => std::thread::sleep(IDLE),
                None => return Ok(End::Complete),
            }
        }
        Ok(End::Stopped)
    }

    /// Whether this worker is alone and an earlier one left evaluations without a verdict.
    fn is_to_wait(&mut self) -> Result<bool, StoreError> {
        if !self.left_over.is_empty() {
            let leased = self.store.leased()?;
            self.left_over.retain(|evaluation| leased.contains(evaluation));
        }
        Ok(!self.left_over.is_empty())
    }

    fn lease(&self) -> Lease {
        Lease { worker: self.id.clone(), token: token(&self.id), seconds: self.options.lease_seconds }
    }

    /// Proposes the next candidates of a run, and judges the last one if that is to be done.
    fn advance(&mut self, run: &Progress, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        self.forget_after_a_break();
        let batch = self.proposer.batch(&mut self.store, run, fitness)?;
        let proposed = self.store.propose(&batch, &self.lease())?;
        if !proposed.as_ref().is_some_and(|proposed| proposed.is_next) {
            self.proposer.take_back(&batch);
        }
        match proposed.and_then(|proposed| proposed.task) {
            Some(task) => self.judge(&task, fitness),
            None => Ok(()),
        }
    }

    /// What was read on an earlier connection may not hold any more.
    fn forget_after_a_break(&mut self) {
        if self.store.connections() != self.connections {
            self.connections = self.store.connections();
            self.proposer.forget();
        }
    }

    /// Judges a layer and stores the verdict; what fails gives the lease back.
    fn judge(&mut self, task: &Task, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        self.verdict(task, fitness).inspect_err(|error| {
            // If that fails too, the lease runs out.
            let _ = match error {
                SearchError::Fitness { problem, .. } => self.store.fail(task, problem),
                SearchError::Store(_) => self.store.release(task),
            };
        })
    }

    fn verdict(&mut self, task: &Task, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        let start = Instant::now();
        let verdict = if let Some(detail) = self.hopeless(task) {
            (self.notify)(Notice::PassedOver { graph: task.graph.clone(), detail: detail.clone() });
            Verdict::Rejected { reason: Reason::Crash, detail }
        } else {
            let layer = self.proposer.layer(&task.graph)?;
            let is_void = self.heart.hold(&task.token);
            let judged = fitness.evaluate(&layer, task.protocol, task.seed, &is_void);
            self.heart.let_go();
            match judged {
                Ok(verdict) => verdict,
                Err(_) if is_void.load(Ordering::Relaxed) => return Ok(()),
                Err(problem) => {
                    return Err(SearchError::Fitness {
                        problem,
                        graph: task.graph.clone(),
                        failures: task.failures + 1,
                        max_failures: self.options.max_failures,
                    });
                }
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        // A worker that could not be seen for too long has lost its lease, and another one has the verdict.
        self.store.complete(task, &verdict, seconds)?;
        Ok(())
    }

    /// Why a layer cannot be judged, if it was tried often enough.
    fn hopeless(&self, task: &Task) -> Option<String> {
        let reaches = |count: u64, limit: u64| limit > 0 && count >= limit;
        if reaches(task.failures, self.options.max_failures) {
            let error = task.error.as_deref().unwrap_or_default();
            return Some(format!("judging it failed {} times, the last time with: {error}", task.failures));
        }
        let deaths = task.deaths();
        reaches(deaths, self.options.max_deaths).then(|| format!("{deaths} workers died while they judged it"))
    }
}
