//! A worker: it proposes a layer, judges it, stores the verdict, and begins again until every budget is
//! spent.
//!
//! The search has no generations and no master. Whoever is free proposes the next candidate of the run that
//! has spent the least of its budget, from the verdicts that are known at that moment; a layer that is being
//! judged elsewhere keeps nobody waiting. What candidate `n` of a run draws depends on the run's seed, on `n`,
//! and on the verdicts before it alone. So one worker writes the same history each time, wherever it was
//! stopped and started again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use normact_egraph::Canonicalizer;
use normact_ir::Layer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::fitness::{Fitness, Reason, Verdict};
use crate::genotype::{Genotype, structure};
use crate::heart::Heart;
use crate::options::{Evolution, Options, Strategy};
use crate::process::{host, is_alive, token, worker_id};
use crate::selection::{happens, tournament};
use crate::store::{Origin, Progress, Proposal, Proposed, Run, Store, StoreError, Task};

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
    /// A layer cannot be judged, for a reason that is not its own.
    #[error("{0}")]
    Fitness(String),
}

/// How long a worker with nothing to do waits before it looks again.
const IDLE: Duration = Duration::from_millis(100);

/// Works on the search in the database at `url` until it is complete, or until `stop` is set.
///
/// # Errors
/// The database or the fitness fails. What was leased is given back.
pub fn work(url: &str, options: &Options, fitness: &mut dyn Fitness, stop: &AtomicBool) -> Result<End, SearchError> {
    let mut store = Store::open(url)?;
    let id = worker_id();
    store.register(&id, &host(), std::process::id(), is_alive)?;
    let heart = Heart::start(url, options.lease_seconds);
    let runs = store.runs()?;
    let histories = runs.iter().map(|run| (run.id, History::default())).collect();
    let mut left_over = if options.is_alone { store.leased()? } else { vec![] };
    let mut worker = Worker { store, options, runs, histories, id, heart, keys: Canonicalizer::default() };
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Stopped);
        }
        let lease = options.lease_seconds;
        if let Some(task) = worker.store.take_over(&worker.id, &token(&worker.id), lease)? {
            worker.judge(&task, fitness)?;
            continue;
        }
        if !left_over.is_empty() {
            let leased = worker.store.leased()?;
            left_over.retain(|evaluation| leased.contains(evaluation));
            if !left_over.is_empty() {
                std::thread::sleep(IDLE);
                continue;
            }
        }
        let progress = worker.store.progress()?;
        let next = progress.iter().filter(|run| !run.is_spent()).min_by(|a, b| {
            // The share of the budget, without rounding.
            (i128::from(a.spent) * i128::from(b.budget)).cmp(&(i128::from(b.spent) * i128::from(a.budget)))
        });
        match next {
            Some(&run) => worker.advance(run, fitness)?,
            None if worker.store.anything_waits()? => std::thread::sleep(IDLE),
            None => return Ok(End::Complete),
        }
    }
}

/// What a run has found out.
#[derive(Debug, Default)]
struct History {
    finished: u64,
    /// Those with scores, in the order of verdicts.
    numbers: Vec<u64>,
    scores: Vec<Vec<f64>>,
    graphs: Vec<String>,
}

struct Worker<'a> {
    store: Store,
    options: &'a Options,
    runs: Vec<Run>,
    histories: HashMap<i64, History>,
    id: String,
    heart: Heart,
    keys: Canonicalizer,
}

impl Worker<'_> {
    /// Proposes the next candidate of a run, and judges it if that is to be done.
    fn advance(&mut self, progress: Progress, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        let proposal = self.next(progress, fitness)?;
        let token = token(&self.id);
        match self.store.propose(&proposal, &self.id, &token, self.options.lease_seconds)? {
            Proposed::Late | Proposed::Waiting | Proposed::Finished => Ok(()),
            Proposed::Leased(task) => self.judge(&task, fitness),
        }
    }

    /// Judges a layer and stores the verdict; what fails gives the lease back.
    fn judge(&mut self, task: &Task, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        self.verdict(task, fitness).inspect_err(|_| {
            // If that fails too, the lease runs out.
            let _ = self.store.release(task);
        })
    }

    fn verdict(&mut self, task: &Task, fitness: &mut dyn Fitness) -> Result<(), SearchError> {
        let start = Instant::now();
        let verdict = if Store::is_hopeless(task) {
            let detail = format!("{} workers died while they judged it", task.attempts - 1);
            Verdict::Rejected { reason: Reason::Crash, detail }
        } else {
            let layer = self.layer(&task.graph)?;
            self.heart.hold(&task.token);
            let verdict = fitness.evaluate(&layer, task.protocol, task.seed);
            self.heart.let_go();
            verdict.map_err(SearchError::Fitness)?
        };
        let seconds = start.elapsed().as_secs_f64();
        // A worker that slept too long has lost its lease, and another one has the verdict.
        self.store.complete(task, &verdict, seconds)?;
        Ok(())
    }

    fn layer(&self, graph: &str) -> Result<Layer, SearchError> {
        if let Some((_, layer)) = self.options.fixed.iter().find(|(name, _)| name == graph) {
            return Ok(layer.clone());
        }
        let genotype = self.options.space.parse(graph);
        Ok(genotype.map_err(|error| StoreError::Damaged(error.to_string()))?.layer("candidate"))
    }

    fn catch_up(&mut self, run: i64) -> Result<(), SearchError> {
        let history = self.histories.entry(run).or_default();
        for candidate in self.store.finished(run, history.finished)? {
            history.finished = candidate.finish.unwrap_or(history.finished);
            if let Some(Verdict::Scored(scores)) = candidate.verdict {
                history.numbers.push(candidate.number);
                history.scores.push(scores);
                history.graphs.push(candidate.graph);
            }
        }
        Ok(())
    }

    fn next(&mut self, progress: Progress, fitness: &dyn Fitness) -> Result<Proposal, SearchError> {
        let run = self.runs.iter().find(|run| run.id == progress.id).ok_or(StoreError::NoSearch)?.clone();
        let strategy = Strategy::by_name(&run.strategy)
            .ok_or_else(|| StoreError::Damaged(format!("the strategy `{}`", run.strategy)))?;
        let number = progress.proposed;
        let protocol = strategy.protocol();
        let mut rng = ChaCha8Rng::seed_from_u64(run.seed);
        rng.set_stream(number as u64);
        let (origin, graph, layer) = match strategy {
            Strategy::Fixed => {
                let at = usize::try_from(number).unwrap_or(usize::MAX);
                let (name, layer) = self.options.fixed.get(at).ok_or_else(|| {
                    StoreError::Damaged(format!("fixed layer {number}, of {}", self.options.fixed.len()))
                })?;
                (Origin::Fixed, name.clone(), layer.clone())
            }
            Strategy::Random | Strategy::RandomTested => {
                let genotype = self.options.space.draw(&mut rng);
                (Origin::Fresh, genotype.to_string(), genotype.layer("candidate"))
            }
            Strategy::Evolution => {
                self.catch_up(run.id)?;
                let (origin, genotype) = self.evolve(run.id, number as u64, &mut rng)?;
                (origin, genotype.to_string(), genotype.layer("candidate"))
            }
        };
        let (key, _) = self.keys.key(&layer.dag);
        // A look at the structure costs nothing, so it is not one of the tests that random search does without.
        let problem = match strategy {
            Strategy::Fixed => None,
            Strategy::Evolution | Strategy::RandomTested | Strategy::Random => {
                structure(&layer.dag, self.options.mere_statistics)
                    .map(str::to_owned)
                    .or_else(|| fitness.structure(&layer))
            }
        };
        let judged = match problem {
            Some(problem) => Err((Reason::Structure, problem)),
            None => Ok(self.options.evaluation_seed),
        };
        Ok(Proposal { run: run.id, number, origin, graph, key: key.to_string(), protocol, judged })
    }

    fn evolve(&self, run: i64, number: u64, rng: &mut ChaCha8Rng) -> Result<(Origin, Genotype), SearchError> {
        let Evolution { population, tournament: share, winner, mutations, fresh, initial } = self.options.evolution;
        let history = &self.histories[&run];
        let space = &self.options.space;
        let is_fresh = number < initial as u64 || happens(fresh, rng);
        let parent = if is_fresh { None } else { tournament(&history.scores, population, share, winner, rng) };
        let Some(parent) = parent else { return Ok((Origin::Fresh, space.draw(rng))) };
        let graph = &history.graphs[parent];
        let mut child = space.parse(graph).map_err(|error| StoreError::Damaged(error.to_string()))?;
        (0..mutations).for_each(|_| space.mutate(&mut child, rng));
        Ok((Origin::Child { parent: history.numbers[parent], mutations: mutations as u64 }, child))
    }
}
