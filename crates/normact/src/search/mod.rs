//! The search for layers on real networks: a configuration, networks that judge, workers, and what comes of it.
//!
//! [`normact_search`] proposes and remembers, [`crate::fitness`] trains; this module joins the two. A search
//! on one machine is a process that watches and, with several workers, a process for each of them; on several
//! machines each has its `normact search CONFIG --worker` on a common PostgreSQL database.

mod config;
mod formula;
mod judge;
mod process;
mod progress;
mod report;
mod rerank;
mod results;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use config::{Config, RerankTable, SearchTable, SpaceTable};
pub use formula::Layers;
pub use judge::Judge;
pub(crate) use judge::dataset;
pub use process::stop_at_end_of_input;
pub use rerank::{Reranked, rerank};
pub(crate) use results::named;
pub use results::{Best, Line, summary};

use normact_search::{Candidate, End, Notice, Options, Reason, Run, SearchError, Store, StoreError, Verdict, work};

use crate::Failure;
use crate::data::Dataset;
use crate::device::OpenDevice;
use config::Fingerprint;
use process::Workers;
use progress::Watch;

/// How often the watching process looks into the database.
const LOOK: Duration = Duration::from_millis(300);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The search, and then ranking the best again.
    Everything,
    /// Ranking again alone.
    RankingAgain,
}

/// What the store says, as a message for people.
pub(crate) fn failure(error: &StoreError) -> Failure {
    Failure::with(error.to_string(), error.help())
}

/// What stops a search, as a message for people.
fn search_failure(error: &SearchError) -> Failure {
    Failure::with(error.to_string(), error.help())
}

/// Tells whoever watches a worker what it noticed.
fn tell(notice: Notice) {
    drop(writeln!(std::io::stderr(), "{notice}"));
}

/// Begins the search in its database, or goes on with it there, after a look at the data and the options of the
/// training: a search that cannot be run does not take a database.
///
/// # Errors
/// The data or the options are not possible; the database cannot be used, or holds another search.
pub fn begin(config: &Config, text: &str, device: &OpenDevice) -> Result<(), Failure> {
    let dataset = judge::dataset(config)?;
    Judge::new(config, &dataset, device)?;
    let fingerprint = Fingerprint::new(config, &dataset, device.name)?;
    let mut store = Store::open(&config.database()).map_err(|error| failure(&error))?;
    match store.begin_search(&fingerprint.text(), text, &config.runs()) {
        Err(error) => {
            // What it is that differs says more than that something does.
            if let Ok(known) = store.fingerprint() {
                fingerprint.check(&Fingerprint::read(&known)?)?;
            }
            Err(failure(&error))
        }
        Ok(()) => Ok(()),
    }
}

/// Opens the database of a search that was begun, and makes sure that it is this one. Who only looks at what there
/// is needs neither the data nor the device.
fn open(config: &Config, means: Option<(&Dataset, &OpenDevice)>) -> Result<Store, Failure> {
    let mut store = Store::open_existing(&config.database()).map_err(|error| failure(&error))?;
    let known = Fingerprint::read(&store.fingerprint().map_err(|error| failure(&error))?)?;
    let fingerprint = match means {
        Some((dataset, device)) => Fingerprint::new(config, dataset, device.name)?,
        None => Fingerprint::with_the_means_of(config, &known)?,
    };
    fingerprint.check(&known)?;
    Ok(store)
}

/// What the database of a search holds.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// Every run.
    pub runs: Vec<Run>,
    /// Every candidate, by run and number.
    pub candidates: Vec<Candidate>,
    /// What ranking again made of the best, the best first.
    pub reranked: Vec<Reranked>,
}

impl History {
    /// Reads it.
    ///
    /// # Errors
    /// The database cannot be used, or holds another search or none.
    pub fn read(config: &Config) -> Result<Self, Failure> {
        let mut store = open(config, None)?;
        let runs = store.runs().map_err(|error| failure(&error))?;
        let candidates = store.candidates().map_err(|error| failure(&error))?;
        let reranked = rerank::reranked(config, &mut store, &candidates)?;
        Ok(Self { runs, candidates, reranked })
    }
}

/// Works until everything is done, in this process; alone, or beside other workers.
///
/// # Errors
/// The database, the data or the device fails.
pub fn run_worker(
    config: &Config,
    device: &OpenDevice,
    what: Work,
    is_alone: bool,
    stop: &AtomicBool,
) -> Result<End, Failure> {
    if what == Work::Everything && search(config, device, is_alone, stop)? == End::Stopped {
        return Ok(End::Stopped);
    }
    if config.rerank.top == 0 { Ok(End::Complete) } else { rerank(config, device, stop) }
}

fn search(config: &Config, device: &OpenDevice, is_alone: bool, stop: &AtomicBool) -> Result<End, Failure> {
    let options = Options {
        space: config.space(),
        mere_statistics: config.space.mere_statistics,
        evolution: config.evolution.clone(),
        fixed: config.baselines()?,
        evaluation_seed: config.search.training_seed,
        lease_seconds: config.search.lease_seconds,
        is_alone,
        max_deaths: config.search.max_deaths,
        max_failures: config.search.max_failures,
    };
    let dataset = judge::dataset(config)?;
    let mut judge = Judge::new(config, &dataset, device)?;
    work(&config.database(), &options, &mut judge, stop, &tell).map_err(|error| search_failure(&error))
}

/// Runs the workers that the configuration asks for and shows how far they are. A single one works in this
/// process; several are processes of their own.
///
/// # Errors
/// The database holds another search or fails, or the workers end before their work does.
pub fn run(
    config: &Config,
    file: &Path,
    device: &OpenDevice,
    device_name: &str,
    what: Work,
    stop: &AtomicBool,
) -> Result<End, Failure> {
    let mut watch = Watch::new(config, what)?;
    if config.search.workers == 1 {
        return std::thread::scope(|scope| {
            let worker = scope.spawn(|| run_worker(config, device, what, true, stop));
            while !worker.is_finished() {
                std::thread::sleep(LOOK);
                // A worker that nobody watches is not to go on.
                watch.look().inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            watch.look()?;
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }
    let mut workers = Workers::start(config, file, device_name, what)?;
    loop {
        std::thread::sleep(LOOK);
        let moved = watch.look()?;
        let is_stopping = stop.load(Ordering::Relaxed);
        if is_stopping {
            workers.stop();
        }
        if workers.tend(moved, is_stopping, &mut |text| watch.say(text))? > 0 {
            continue;
        }
        watch.look()?;
        return if watch.is_complete() {
            Ok(End::Complete)
        } else if is_stopping {
            Ok(End::Stopped)
        } else if !workers.have_failed() {
            // Somebody else is at the search, whose best layers of a moment ago these workers have ranked again.
            Ok(End::Complete)
        } else {
            Err(Failure::new("every worker has ended, and the search has not")
                .help("start it again: it goes on where it stopped"))
        };
    }
}

/// The report of a search as a page.
///
/// # Errors
/// A baseline cannot be read any more.
pub fn page(config: &Config, history: &History) -> Result<String, Failure> {
    let names = |anchors: Vec<(String, _)>| anchors.into_iter().map(|(name, _)| name).collect::<Vec<String>>();
    let title = config.search.out.file_name().map_or("search".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(report::html(&report::Subject {
        title: &title,
        anchors: &names(config.anchors.clone()),
        runs: &history.runs,
        candidates: &history.candidates,
        layers: &Layers::of(config)?,
        reranked: &history.reranked,
        reranked_in: &names(config.rerank_anchors()),
    }))
}

/// Whether a candidate is one of those that a budget counts: a layer that its run had not met, and that no look
/// at its structure rejected.
fn was_judged(candidate: &Candidate) -> bool {
    let reason = candidate.verdict.as_ref().and_then(Verdict::reason);
    !candidate.is_duplicate && candidate.verdict.is_some() && reason != Some(Reason::Structure)
}
