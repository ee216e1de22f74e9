//! The search for layers on real networks: a configuration, networks that judge, workers, and what comes of it.
//!
//! [`normact_search`] proposes and remembers, [`crate::fitness`] trains; this module joins the two. A search
//! on one machine is a process that watches and, with several workers, a process for each of them; on several
//! machines each has its `normact search CONFIG --worker` on a common PostgreSQL database.

mod config;
mod judge;
mod progress;
mod report;
mod rerank;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use config::{Config, EvolutionTable, RerankTable, SearchTable, SpaceTable, WinnerName};
pub use judge::Judge;
pub use rerank::{Reranked, best, layer_of, rerank, reranked};

use normact_ir::Layer;
use normact_search::{Candidate, End, Notice, Options, Reason, Store, StoreError, Strategy, Verdict, work};

use crate::device::OpenDevice;
use crate::{Failure, load};
use progress::Bars;

/// How often the watching process looks into the database.
const LOOK: Duration = Duration::from_millis(300);

/// Set for workers that stop when their standard input ends, which also happens when the process that started
/// them is no more.
const STOPS_AT_END_OF_INPUT: &str = "NORMACT_STOPS_AT_END_OF_INPUT";

/// Lets a worker that another process started stop when that process says so.
pub fn stop_at_end_of_input(stop: &'static AtomicBool) {
    if std::env::var_os(STOPS_AT_END_OF_INPUT).is_some() {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// What the store says, as a message for people.
pub fn failure(error: &StoreError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error.help() {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// The baselines with their layers.
///
/// # Errors
/// A built-in layer cannot be read.
pub fn baselines(config: &Config) -> Result<Vec<(String, Layer)>, Failure> {
    config.search.baselines.iter().map(|name| Ok((name.clone(), load::layer(name, &[])?))).collect()
}

/// Begins the search in its database, or goes on with it there, after a look at the data and the options of the
/// training: a search that cannot be run does not take a database.
///
/// # Errors
/// The data or the options are not possible; the database cannot be used, or holds another search.
pub fn begin(config: &Config, text: &str, device: &OpenDevice) -> Result<(), Failure> {
    let dataset = judge::dataset(config)?;
    Judge::new(config, &dataset, device)?;
    let mut store = Store::open(&config.database()).map_err(|error| failure(&error))?;
    store.begin_search(&config.fingerprint(&dataset), text, &config.runs()).map_err(|error| failure(&error))
}

/// Works on a search until it is complete, in this process; alone, or beside other workers.
///
/// # Errors
/// The database, the data or the device fails.
pub fn run_worker(config: &Config, device: &OpenDevice, is_alone: bool, stop: &AtomicBool) -> Result<End, Failure> {
    let options = Options {
        space: config.space(),
        mere_statistics: config.space.mere_statistics,
        evolution: config.evolution(),
        fixed: baselines(config)?,
        evaluation_seed: config.search.training_seed,
        lease_seconds: config.search.lease_seconds,
        is_alone,
        max_deaths: config.search.max_deaths,
        max_failures: config.search.max_failures,
    };
    let dataset = judge::dataset(config)?;
    let mut judge = Judge::new(config, &dataset, device)?;
    let notify = |notice: Notice| drop(writeln!(std::io::stderr(), "{notice}"));
    work(&config.database(), &options, &mut judge, stop, &notify).map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    })
}

/// Runs the workers that the configuration asks for and shows how far they are. A single one works in this
/// process; several are processes of their own, `program search FILE --worker`, which share the cores.
///
/// # Errors
/// The database fails, or the workers end before the search does.
pub fn run(
    config: &Config,
    file: &Path,
    device: &OpenDevice,
    device_name: &str,
    stop: &AtomicBool,
) -> Result<End, Failure> {
    let mut bars = Bars::new(config)?;
    if config.search.workers == 1 {
        return std::thread::scope(|scope| {
            let worker = scope.spawn(|| run_worker(config, device, true, stop));
            while !worker.is_finished() {
                std::thread::sleep(LOOK);
                bars.look()?;
            }
            bars.look()?;
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }
    let mut workers = spawn(config, file, device_name)?;
    let watched = watch(&mut workers, &mut bars, stop);
    // Whatever happened, no worker is left behind.
    for worker in &mut workers {
        let _ = worker.kill();
        let _ = worker.wait();
    }
    watched
}

fn spawn(config: &Config, file: &Path, device_name: &str) -> Result<Vec<Child>, Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("cannot start a worker: {error}"));
    let program = std::env::current_exe().map_err(cannot)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / config.search.workers).max(1);
    let mut workers = vec![];
    for _ in 0..config.search.workers {
        let started = Command::new(&program)
            .args(["search", "--worker", "--device", device_name])
            .arg(file)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env(STOPS_AT_END_OF_INPUT, "1")
            .stdin(Stdio::piped())
            .spawn();
        match started {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                for mut worker in workers {
                    let _ = worker.kill();
                    let _ = worker.wait();
                }
                return Err(cannot(error));
            }
        }
    }
    Ok(workers)
}

fn watch(workers: &mut [Child], bars: &mut Bars, stop: &AtomicBool) -> Result<End, Failure> {
    loop {
        std::thread::sleep(LOOK);
        bars.look()?;
        if stop.load(Ordering::Relaxed) {
            // The end of its input tells a worker to stop after its layer.
            workers.iter_mut().for_each(|worker| drop(worker.stdin.take()));
        }
        let mut running = 0;
        for worker in workers.iter_mut() {
            let ended = worker.try_wait().map_err(|error| Failure::new(format!("a worker is lost: {error}")))?;
            running += usize::from(ended.is_none());
        }
        if running == 0 {
            bars.look()?;
            return if stop.load(Ordering::Relaxed) {
                Ok(End::Stopped)
            } else if bars.is_complete() {
                Ok(End::Complete)
            } else {
                Err(Failure::new("every worker has ended, and the search has not")
                    .help("start it again: it goes on where it stopped"))
            };
        }
    }
}

/// The report of a search as a page.
///
/// # Errors
/// The database fails.
pub fn page(config: &Config, candidates: &[Candidate]) -> Result<String, Failure> {
    let anchors: Vec<String> = config.anchors.iter().map(|(name, _)| name.clone()).collect();
    let reranked = reranked(config, candidates)?;
    let (runs, space, fixed) = (config.runs(), config.space(), baselines(config)?);
    let title = config.search.out.file_name().map_or("search".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(report::html(&report::Subject {
        title: &title,
        anchors: &anchors,
        runs: &runs,
        candidates,
        space: &space,
        fixed: &fixed,
        reranked: &reranked,
    }))
}

/// Whether a candidate is one of those that a budget counts: a layer that its run had not met, and that no look
/// at its structure rejected.
fn was_judged(candidate: &Candidate) -> bool {
    let reason = candidate.verdict.as_ref().and_then(Verdict::reason);
    !candidate.is_duplicate && candidate.verdict.is_some() && reason != Some(Reason::Structure)
}

/// What came of a search, a line for each run: its best mean over the networks, and what it took.
pub fn summary(config: &Config, candidates: &[Candidate]) -> Vec<String> {
    let mut lines = vec![];
    for run in config.runs() {
        let own: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.run == run.id).collect();
        let mean = |candidate: &&Candidate| match &candidate.verdict {
            Some(Verdict::Scored(scores)) => Some(scores.iter().sum::<f64>() / scores.len() as f64),
            _ => None,
        };
        if run.strategy == Strategy::Fixed.name() {
            for candidate in &own {
                let score = mean(candidate).map_or("-".to_owned(), |mean| format!("{:.2} %", mean * 100.0));
                lines.push(format!("{:<22} {score:>8}", candidate.graph));
            }
            continue;
        }
        let best = own.iter().filter_map(mean).reduce(f64::max);
        let score = best.map_or("-".to_owned(), |mean| format!("{:.2} %", mean * 100.0));
        let judged: Vec<&&Candidate> = own.iter().filter(|candidate| was_judged(candidate)).collect();
        let trained = judged.iter().filter(|candidate| mean(candidate).is_some()).count();
        let seconds: f64 = own.iter().map(|candidate| candidate.seconds).sum();
        let name = format!("{} seed {}", run.strategy, run.seed);
        lines.push(format!(
            "{name:<22} {score:>8}  best of {} different layers, {trained} of them trained to the end, {} proposed, \
             {seconds:.0} s of judging",
            judged.len(),
            own.len(),
        ));
    }
    lines
}
