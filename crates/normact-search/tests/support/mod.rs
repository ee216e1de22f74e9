//! A search with a fitness that needs no training, and what must hold of every search, on SQLite and PostgreSQL.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use normact_ir::{Layer, json};
use normact_search::{
    Candidate, End, Evolution, Fitness, Notice, Options, Origin, Protocol, Reason, Run, SearchError, Space, Store,
    Strategy, Verdict, work,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Scores that depend on the layer alone; one in three is rejected.
pub(crate) struct Judge {
    /// How long it takes.
    pub(crate) pause: Duration,
    /// A file that gets a line for each evaluation.
    pub(crate) log: Option<PathBuf>,
    /// After so many evaluations it fails.
    pub(crate) fails_after: u64,
}

impl Judge {
    pub(crate) fn quick() -> Self {
        Self { pause: Duration::ZERO, log: None, fails_after: u64::MAX }
    }
}

impl Fitness for Judge {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64, _: &AtomicBool) -> Result<Verdict, String> {
        if self.fails_after == 0 {
            return Err("the data are gone".to_owned());
        }
        self.fails_after -= 1;
        if let Some(log) = &self.log {
            let (key, _) = normact_egraph::key(&layer.dag);
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
            file.write_all(format!("{key} {}\n", protocol.name()).as_bytes()).unwrap();
        }
        std::thread::sleep(self.pause);
        let mut hasher = DefaultHasher::new();
        (json::to_json(layer), seed).hash(&mut hasher);
        let mut rng = ChaCha8Rng::seed_from_u64(hasher.finish());
        if protocol == Protocol::Tested && rng.random_bool(1.0 / 3.0) {
            return Ok(Verdict::Rejected { reason: Reason::Quality, detail: "17 % after 100 steps".to_owned() });
        }
        Ok(Verdict::Scored((0..3).map(|_| rng.random_range(0.0..1.0)).collect()))
    }
}

pub(crate) fn options() -> Options {
    Options {
        space: Space::evonorm(4, false),
        mere_statistics: true,
        evolution: Evolution { population: 20, tournament: 0.3, initial: 5, ..Evolution::default() },
        fixed: ["one", "two"].into_iter().zip([1, 2]).map(fixed).collect(),
        evaluation_seed: 7,
        lease_seconds: 2.0,
        is_alone: true,
        max_deaths: Options::MAX_DEATHS,
        max_failures: Options::MAX_FAILURES,
    }
}

fn fixed((name, seed): (&str, u64)) -> (String, Layer) {
    let genotype = Space::evonorm(4, false).draw(&mut ChaCha8Rng::seed_from_u64(seed));
    (name.to_owned(), genotype.layer(name))
}

pub(crate) fn runs(budget: u64) -> Vec<Run> {
    let run = |(id, (strategy, seed)): (usize, (Strategy, u64))| {
        let budget = if strategy == Strategy::Fixed { 2 } else { budget };
        let (strategy, proposals) = (strategy.name().to_owned(), budget * Run::PROPOSALS_PER_LAYER);
        Run { id: id as i64, strategy, seed, budget, proposals }
    };
    let all = [
        (Strategy::Evolution, 1),
        (Strategy::Evolution, 2),
        (Strategy::RandomTested, 1),
        (Strategy::Random, 1),
        (Strategy::Fixed, 0),
    ];
    all.into_iter().enumerate().map(run).collect()
}

pub(crate) fn begin(url: &str, budget: u64) {
    Store::open(url).unwrap().begin_search("a", "config", &runs(budget)).unwrap();
}

/// Works as a worker of that kind until the search ends.
pub(crate) fn work_as(url: &str, options: &Options, judge: &mut dyn Fitness) -> Result<End, SearchError> {
    work(url, options, judge, &AtomicBool::new(false), &|_: Notice| ())
}

pub(crate) fn finish(url: &str, judge: &mut dyn Fitness) -> Result<End, SearchError> {
    work_as(url, &options(), judge)
}

/// What a history is, without times.
pub(crate) fn history(url: &str) -> Vec<Candidate> {
    let mut candidates = Store::open(url).unwrap().candidates().unwrap();
    for candidate in &mut candidates {
        (candidate.seconds, candidate.finished_at) = (0.0, None);
    }
    candidates
}

/// The history of a search that nothing disturbs.
pub(crate) fn undisturbed(budget: u64) -> Vec<Candidate> {
    let (_folder, url) = sqlite();
    begin(&url, budget);
    assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
    history(&url)
}

/// What must hold of every complete search.
pub(crate) fn assert_sound(url: &str, budget: u64) {
    let candidates = history(url);
    let mut store = Store::open(url).unwrap();
    let evaluations = store.evaluations().unwrap();
    assert!(evaluations.iter().all(|evaluation| evaluation.is_done), "every evaluation has come to its end");
    let runs = runs(budget);
    let mut verdicts: HashMap<(String, bool), Verdict> = HashMap::new();
    for run in &runs {
        let own: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.run == run.id).collect();
        let numbers: Vec<u64> = own.iter().map(|candidate| candidate.number).collect();
        assert_eq!(numbers, (0..own.len() as u64).collect::<Vec<_>>(), "run {}: no number is missing", run.id);
        let places: BTreeSet<u64> = own.iter().map(|candidate| candidate.finish.unwrap()).collect();
        assert_eq!(places, (1..=own.len() as u64).collect(), "run {}: every verdict has its place", run.id);
        let judged = own.iter().filter(|candidate| {
            let is_free = candidate.verdict.as_ref().and_then(Verdict::reason) == Some(Reason::Structure);
            candidate.origin == Origin::Fixed || (!candidate.is_duplicate && !is_free)
        });
        assert_eq!(judged.count() as u64, run.budget, "run {}: the budget counts what is judged", run.id);
        let mut met = BTreeSet::new();
        for candidate in own {
            let verdict = candidate.verdict.clone().unwrap();
            let is_looked_at = candidate.origin != Origin::Fixed;
            assert_eq!(candidate.is_duplicate, met.contains(&candidate.key), "run {}: {candidate:?}", run.id);
            if is_looked_at && verdict.reason() == Some(Reason::Structure) {
                continue;
            }
            met.insert(candidate.key.clone());
            let tested = matches!(run.strategy.as_str(), "evolution" | "random-tested");
            let known = verdicts.entry((candidate.key.clone(), tested)).or_insert(verdict.clone());
            assert_eq!(known, &verdict, "one key has one verdict");
            if let Origin::Child { parent, .. } = candidate.origin {
                assert!(parent < candidate.number);
            }
        }
    }
}

/// Every layer was judged, and no one more often than it was leased. Gives how often layers were leased again.
pub(crate) fn leased_again(url: &str, log: &std::path::Path) -> u64 {
    let mut logged: BTreeMap<String, u64> = BTreeMap::new();
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().for_each(|key| *logged.entry(key.to_owned()).or_insert(0) += 1);
    let evaluations = Store::open(url).unwrap().evaluations().unwrap();
    let attempts: BTreeMap<String, u64> = evaluations
        .iter()
        .map(|evaluation| (format!("{} {}", evaluation.key, evaluation.protocol.name()), evaluation.attempts))
        .collect();
    assert_eq!(logged.keys().collect::<Vec<_>>(), attempts.keys().collect::<Vec<_>>());
    for (key, times) in &logged {
        assert!(*times <= attempts[key], "{key} was judged {times} times, under {} leases", attempts[key]);
    }
    attempts.values().sum::<u64>() - evaluations.len() as u64
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder that is removed in the end, and the place of a database in it.
pub(crate) fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("search.db").to_str().unwrap().to_owned();
    (folder, url)
}

/// The server that `NORMACT_POSTGRES` names, if there is one.
pub(crate) fn server() -> Option<String> {
    let server = std::env::var("NORMACT_POSTGRES").ok();
    if server.is_none() {
        eprintln!("not tested on PostgreSQL: NORMACT_POSTGRES names no server");
    }
    server
}

/// An empty database of its own on the server.
pub(crate) fn postgresql() -> Option<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let server = server()?;
    let name = format!("search_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    execute(&format!("{server}/postgres"), &format!("CREATE DATABASE {name}"));
    Some(format!("{server}/{name}"))
}

/// An empty database of each kind, with the folder that holds it if there is one.
pub(crate) fn databases() -> Vec<(Option<tempfile::TempDir>, String)> {
    let (folder, url) = sqlite();
    [Some((Some(folder), url)), postgresql().map(|url| (None, url))].into_iter().flatten().collect()
}

/// Runs statements past the store, as nobody but a test should.
pub(crate) fn execute(url: &str, sql: &str) {
    if url.starts_with("postgres") {
        postgres::Client::connect(url, postgres::NoTls).unwrap().batch_execute(sql).unwrap();
    } else {
        let raw = rusqlite::Connection::open(url).unwrap();
        raw.busy_timeout(Duration::from_secs(60)).unwrap();
        raw.execute_batch(sql).unwrap();
    }
}

/// A number that a statement gives.
pub(crate) fn number(url: &str, sql: &str) -> f64 {
    if url.starts_with("postgres") {
        let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
        client.query_one(&format!("SELECT ({sql})::double precision"), &[]).unwrap().get(0)
    } else {
        let raw = rusqlite::Connection::open(url).unwrap();
        raw.busy_timeout(Duration::from_secs(60)).unwrap();
        raw.query_row(&format!("SELECT CAST(({sql}) AS REAL)"), [], |row| row.get(0)).unwrap()
    }
}
