//! A worker: it proposes a layer, judges it, stores the verdict, and begins again until every budget is
//! spent.
//!
//! The search has no generations and no master. Whoever is free proposes the next candidate of the run that
//! has spent the least of its budget, from the verdicts that are known at that moment; a layer that is being
//! judged elsewhere keeps nobody waiting. What candidate `n` of a run draws depends on the run's seed, on `n`,
//! and on the verdicts before it alone. So one worker writes the same history each time, wherever it was
//! stopped and started again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use normact_egraph::Canonicalizer;
use normact_ir::Layer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::fitness::{Fitness, Protocol, Reason, Verdict};
use crate::genotype::{Genotype, Space, structure};
use crate::selection::{Winner, happens, tournament};
use crate::store::{Origin, Progress, Proposal, Proposed, Run, Store, StoreError, Task};

/// How a run finds its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Tournament selection with mutation; layers are tested before they are trained.
    Evolution,
    /// Random layers, tested before they are trained.
    RandomTested,
    /// Random layers, trained without the tests in the networks.
    Random,
    /// Given layers.
    Fixed,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 4] = [Strategy::Evolution, Strategy::RandomTested, Strategy::Random, Strategy::Fixed];

    /// The name in configurations and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Evolution => "evolution",
            Strategy::RandomTested => "random-tested",
            Strategy::Random => "random",
            Strategy::Fixed => "fixed",
        }
    }

    /// The strategy of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    fn protocol(self) -> Protocol {
        match self {
            Strategy::Evolution | Strategy::RandomTested => Protocol::Tested,
            Strategy::Random | Strategy::Fixed => Protocol::Untested,
        }
    }
}

/// How evolution goes. The defaults are those of the paper as far as they are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evolution {
    /// Layers that can have children: so many of the most recent ones.
    pub population: usize,
    /// The share of them that takes part in a tournament.
    pub tournament: f64,
    /// How the winner is found.
    pub winner: Winner,
    /// Mutations of a child.
    pub mutations: usize,
    /// The chance that a candidate is drawn at random instead.
    pub fresh: f64,
    /// Random candidates before the first child.
    pub initial: usize,
}

impl Default for Evolution {
    fn default() -> Self {
        Self { population: 2500, tournament: 0.05, winner: Winner::Pareto, mutations: 2, fresh: 0.5, initial: 0 }
    }
}

/// What a worker needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where layers are drawn from.
    pub space: Space,
    /// Whether results that are the same at every position are judged like others; otherwise they are
    /// rejected for their structure, where layers are tested.
    pub mere_statistics: bool,
    /// How evolution goes.
    pub evolution: Evolution,
    /// The layers of [`Strategy::Fixed`], by name.
    pub fixed: Vec<(String, Layer)>,
    /// The seed of every training.
    pub evaluation_seed: u64,
    /// Seconds after which another worker takes over what this one has left.
    pub lease_seconds: f64,
    /// Whether this worker has the search to itself. It then proposes nothing before it knows the verdicts of
    /// what is leased when it starts: an earlier worker died over that, perhaps on another machine, and the
    /// history is the same only if that verdict comes next.
    pub is_alone: bool,
}

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
pub(crate) const IDLE: Duration = Duration::from_millis(100);

/// Works on the search in the database at `url` until it is complete, or until `stop` is set.
///
/// # Errors
/// The database or the fitness fails. What was leased is given back.
pub fn work(url: &str, options: &Options, fitness: &mut dyn Fitness, stop: &AtomicBool) -> Result<End, SearchError> {
    let mut store = Store::open(url)?;
    let id = worker_id();
    store.register(&id, &host(), std::process::id(), is_alive)?;
    let heart = Heart::start(url, options.lease_seconds, Store::prolong);
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

/// Prolongs the lease of a token.
type Prolong = fn(&mut Store, &str, f64) -> Result<bool, StoreError>;

/// Prolongs the lease of what is being judged, from a thread and a connection of its own.
pub(crate) struct Heart {
    state: Arc<(Mutex<Pulse>, Condvar)>,
}

#[derive(Default)]
struct Pulse {
    token: Option<String>,
    is_over: bool,
}

impl Heart {
    pub(crate) fn start(url: &str, lease_seconds: f64, prolong: Prolong) -> Self {
        let state: Arc<(Mutex<Pulse>, Condvar)> = Arc::default();
        let (shared, url) = (Arc::clone(&state), url.to_owned());
        std::thread::spawn(move || {
            let mut store: Option<Store> = None;
            let interval = Duration::from_secs_f64((lease_seconds / 3.0).max(0.01));
            let (pulse, changed) = &*shared;
            let mut pulse = pulse.lock().unwrap_or_else(PoisonError::into_inner);
            while !pulse.is_over {
                (pulse, _) = changed.wait_timeout(pulse, interval).unwrap_or_else(PoisonError::into_inner);
                let Some(token) = pulse.token.clone() else { continue };
                drop(pulse);
                // A beat that fails is tried again with a new connection; if all fail the lease runs out.
                let connection = store.take().map_or_else(|| Store::open(&url), Ok);
                store = connection.and_then(|mut store| prolong(&mut store, &token, lease_seconds).map(|_| store)).ok();
                pulse = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            }
        });
        Self { state }
    }

    pub(crate) fn hold(&self, token: &str) {
        self.set(|pulse| pulse.token = Some(token.to_owned()));
    }

    pub(crate) fn let_go(&self) {
        self.set(|pulse| pulse.token = None);
    }

    fn set(&self, change: impl FnOnce(&mut Pulse)) {
        change(&mut self.state.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.set(|pulse| pulse.is_over = true);
        self.state.1.notify_all();
    }
}

/// A name that no other worker has.
pub(crate) fn worker_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}:{}:{}:{count}", host(), std::process::id(), since.as_nanos())
}

/// A name that no other lease has.
pub(crate) fn token(worker: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{worker}/{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn host() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    // Containers may share a name; what they do not share is the namespace of their processes.
    let namespace = std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let name = read("/proc/sys/kernel/hostname").or_else(|| std::env::var("COMPUTERNAME").ok());
    format!("{}{namespace}", name.unwrap_or_else(|| "unknown".to_owned()))
}

/// Whether a process of this machine still runs; where that cannot be told, its lease has to run out.
pub(crate) fn is_alive(process: u32) -> bool {
    !cfg!(target_os = "linux")
        || std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| {
            // A process that was killed and not yet waited for is no more.
            !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        })
}
