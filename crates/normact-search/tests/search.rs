//! The search with a fitness that needs no training: the same history each time, nothing lost or done twice
//! by workers that are killed, on SQLite and on PostgreSQL.

#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use normact_ir::{Layer, json};
use normact_search::{
    Candidate, End, Evolution, Fitness, Options, Origin, Protocol, Reason, Run, SearchError, Space, Store, StoreError,
    Strategy, Verdict, Winner, work,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Scores that depend on the layer alone; one in three is rejected.
struct Judge {
    pause: Duration,
    /// A file that gets a line for each evaluation.
    log: Option<String>,
    /// After so many evaluations it fails.
    fails_after: u64,
}

impl Judge {
    fn quick() -> Self {
        Self { pause: Duration::ZERO, log: None, fails_after: u64::MAX }
    }
}

impl Fitness for Judge {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64) -> Result<Verdict, String> {
        if self.fails_after == 0 {
            return Err("the data are gone".to_owned());
        }
        self.fails_after -= 1;
        let graph = json::to_json(layer);
        if let Some(log) = &self.log {
            let (key, _) = normact_egraph::key(&layer.dag);
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
            file.write_all(format!("{key} {}\n", protocol.name()).as_bytes()).unwrap();
        }
        std::thread::sleep(self.pause);
        let mut hasher = DefaultHasher::new();
        (graph, seed).hash(&mut hasher);
        let mut rng = ChaCha8Rng::seed_from_u64(hasher.finish());
        if protocol == Protocol::Tested && rng.random_bool(1.0 / 3.0) {
            return Ok(Verdict::Rejected { reason: Reason::Quality, detail: "17 % after 100 steps".to_owned() });
        }
        Ok(Verdict::Scored((0..3).map(|_| rng.random_range(0.0..1.0)).collect()))
    }
}

fn options() -> Options {
    Options {
        space: Space::evonorm(4, false),
        mere_statistics: true,
        evolution: Evolution { population: 20, tournament: 0.3, initial: 5, ..Evolution::default() },
        fixed: ["one", "two"].into_iter().zip([1, 2]).map(fixed).collect(),
        evaluation_seed: 7,
        lease_seconds: 2.0,
        is_alone: true,
    }
}

fn fixed((name, seed): (&str, u64)) -> (String, Layer) {
    let genotype = Space::evonorm(4, false).draw(&mut ChaCha8Rng::seed_from_u64(seed));
    (name.to_owned(), genotype.layer(name))
}

fn runs(budget: u64) -> Vec<Run> {
    let run = |(id, (strategy, seed)): (usize, (Strategy, u64))| Run {
        id: id as i64,
        strategy: strategy.name().to_owned(),
        seed,
        budget: if strategy == Strategy::Fixed { 2 } else { budget },
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

fn begin(url: &str, budget: u64) {
    Store::open(url).unwrap().begin_search("a", "config", &runs(budget)).unwrap();
}

fn finish(url: &str, judge: &mut Judge) -> Result<End, SearchError> {
    work(url, &options(), judge, &AtomicBool::new(false))
}

/// What a history is, without times.
fn history(url: &str) -> Vec<Candidate> {
    let mut candidates = Store::open(url).unwrap().candidates().unwrap();
    for candidate in &mut candidates {
        (candidate.seconds, candidate.finished_at) = (0.0, None);
    }
    candidates
}

/// What must hold of every complete search.
fn assert_sound(url: &str, budget: u64) {
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
        for candidate in own {
            let verdict = candidate.verdict.clone().unwrap();
            // Given layers are not looked at for their structure.
            if verdict.reason() == Some(Reason::Structure) {
                continue;
            }
            let tested = matches!(run.strategy.as_str(), "evolution" | "random-tested");
            let known = verdicts.entry((candidate.key.clone(), tested)).or_insert(verdict.clone());
            assert_eq!(known, &verdict, "one key has one verdict");
            if let Origin::Child { parent, .. } = candidate.origin {
                assert!(parent < candidate.number);
            }
        }
    }
}

fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("search.db").to_str().unwrap().to_owned();
    (folder, url)
}

/// A database of its own on the server that `NORMACT_POSTGRES` names, if there is one.
fn postgresql() -> Option<String> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Ok(server) = std::env::var("NORMACT_POSTGRES") else {
        eprintln!("not tested on PostgreSQL: NORMACT_POSTGRES names no server");
        return None;
    };
    let name = format!("search_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut client = postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    Some(format!("{server}/{name}"))
}

#[test]
fn one_worker_writes_the_same_history_each_time() {
    let (_a, first) = sqlite();
    let (_b, second) = sqlite();
    for url in [&first, &second] {
        begin(url, 60);
        assert_eq!(finish(url, &mut Judge::quick()), Ok(End::Complete));
        assert_sound(url, 60);
    }
    let candidates = history(&first);
    assert_eq!(candidates, history(&second));
    let children = candidates.iter().filter(|candidate| matches!(candidate.origin, Origin::Child { .. })).count();
    let count = |reason| {
        let found = |candidate: &&Candidate| candidate.verdict.as_ref().and_then(Verdict::reason) == Some(reason);
        candidates.iter().filter(found).count()
    };
    assert!(children > 40 && count(Reason::Structure) > 20 && count(Reason::Quality) > 10, "{children} children");
    assert!(candidates.iter().any(|candidate| candidate.is_duplicate));
    if let Some(url) = postgresql() {
        begin(&url, 60);
        assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
        assert_sound(&url, 60);
        assert_eq!(candidates, history(&url), "PostgreSQL and SQLite hold the same");
    }
}

#[test]
fn a_search_that_failed_or_was_stopped_goes_on_to_the_same_history() {
    let (_a, whole) = sqlite();
    begin(&whole, 20);
    finish(&whole, &mut Judge::quick()).unwrap();
    let (_b, url) = sqlite();
    begin(&url, 20);
    let mut failures = 0;
    // Every evaluation fails once before it succeeds.
    loop {
        match finish(&url, &mut Judge { fails_after: failures % 2, ..Judge::quick() }) {
            Ok(End::Complete) => break,
            Err(SearchError::Fitness(problem)) => assert_eq!(problem, "the data are gone"),
            other => panic!("{other:?}"),
        }
        failures += 1;
    }
    assert!(failures > 60);
    assert_eq!(history(&whole), history(&url));
    let stopped = work(&url, &options(), &mut Judge::quick(), &AtomicBool::new(true));
    assert_eq!(stopped, Ok(End::Stopped));
}

/// Not a test of its own: the worker of the tests below, in a process of its own.
#[test]
fn worker_process() {
    let Ok(url) = std::env::var("NORMACT_TEST_WORKER") else { return };
    let log = std::env::var("NORMACT_TEST_LOG").unwrap();
    let is_alone = std::env::var("NORMACT_TEST_WORKERS").unwrap() == "1";
    let mut judge = Judge { pause: Duration::from_millis(3), log: Some(log), ..Judge::quick() };
    let options = Options { is_alone, ..options() };
    assert_eq!(work(&url, &options, &mut judge, &AtomicBool::new(false)), Ok(End::Complete));
}

fn spawn_worker(url: &str, log: &str, workers: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_process", "--nocapture"])
        .envs([("NORMACT_TEST_WORKER", url), ("NORMACT_TEST_LOG", log)])
        .env("NORMACT_TEST_WORKERS", workers.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs workers and kills one of them now and then, `kills` times; then lets them finish.
fn with_killings(url: &str, log: &str, workers: usize, kills: usize, seed: u64) {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut children: Vec<Child> = (0..workers).map(|_| spawn_worker(url, log, workers)).collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(rng.random_range(20..120)));
        let victim = rng.random_range(0..workers);
        children[victim].kill().unwrap();
        children[victim].wait().unwrap();
        children[victim] = spawn_worker(url, log, workers);
    }
    let start = Instant::now();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(start.elapsed() < Duration::from_secs(120), "leases of the dead come back");
}

fn lines(log: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    std::fs::read_to_string(log).unwrap().lines().for_each(|key| *counts.entry(key.to_owned()).or_insert(0) += 1);
    counts
}

#[test]
fn one_worker_that_is_killed_again_and_again_writes_the_same_history() {
    let (_a, whole) = sqlite();
    begin(&whole, 60);
    finish(&whole, &mut Judge::quick()).unwrap();
    let (folder, url) = sqlite();
    let log = folder.path().join("log").to_str().unwrap().to_owned();
    begin(&url, 60);
    with_killings(&url, &log, 1, 15, 11);
    assert_eq!(history(&whole), history(&url));
    let again = lines(&log).values().filter(|&&times| times > 1).count();
    assert!(again <= 15, "only what was being judged when the process died is judged again: {again}");
}

#[test]
fn many_workers_that_are_killed_at_random_judge_every_layer_once() {
    let (folder, path) = sqlite();
    for (number, url) in [Some(path), postgresql()].into_iter().flatten().enumerate() {
        let log = folder.path().join(format!("log{number}")).to_str().unwrap().to_owned();
        begin(&url, 150);
        with_killings(&url, &log, 4, 25, 12);
        assert_sound(&url, 150);
        assert_judged_under_leases(&url, &log, 25);
    }
}

/// Every layer was judged, no one more often than it was leased, and few were leased again.
fn assert_judged_under_leases(url: &str, log: &str, most_again: u64) {
    let logged = lines(log);
    let evaluations = Store::open(url).unwrap().evaluations().unwrap();
    let mut attempts: BTreeMap<String, u64> = BTreeMap::new();
    for evaluation in &evaluations {
        attempts.insert(format!("{} {}", evaluation.key, evaluation.protocol.name()), evaluation.attempts);
    }
    assert_eq!(logged.keys().collect::<Vec<_>>(), attempts.keys().collect::<Vec<_>>());
    for (key, times) in &logged {
        assert!(*times <= attempts[key], "{key} was judged {times} times, under {} leases", attempts[key]);
    }
    let again: u64 = attempts.values().sum::<u64>() - evaluations.len() as u64;
    assert!(again <= most_again, "{again} evaluations were begun again after {most_again} mishaps");
}

#[test]
fn workers_outlive_a_server_that_hangs_up() {
    let Some(url) = postgresql() else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log").to_str().unwrap().to_owned();
    begin(&url, 100);
    let mut children: Vec<Child> = (0..3).map(|_| spawn_worker(&url, &log, 3)).collect();
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    let mut hung_up = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        hung_up += client.query(sql, &[]).unwrap().len();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert!(hung_up > 20, "{hung_up} connections were closed");
    assert_sound(&url, 100);
    assert_judged_under_leases(&url, &log, hung_up as u64);
}

#[test]
fn a_single_worker_waits_for_what_a_lost_one_was_judging() {
    let (_a, whole) = sqlite();
    begin(&whole, 20);
    finish(&whole, &mut Judge::quick()).unwrap();
    let (_b, url) = sqlite();
    begin(&url, 20);
    assert!(finish(&url, &mut Judge { fails_after: 7, ..Judge::quick() }).is_err());
    // As if the worker had been on another machine: nobody here can tell whether it is alive.
    let raw = rusqlite::Connection::open(&url).unwrap();
    let sql =
        "UPDATE evaluations SET worker = 'elsewhere', lease_until = unixepoch('subsec') + 0.5 WHERE state = 'leased'";
    assert_eq!(raw.execute(sql, []).unwrap(), 1);
    drop(raw);
    let start = Instant::now();
    assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
    assert!(start.elapsed() >= Duration::from_millis(400));
    assert_eq!(history(&whole), history(&url));
}

#[test]
fn each_run_bears_the_cost_of_its_layers() {
    let (_folder, url) = sqlite();
    // Two runs that draw the same.
    let run = |id| Run { id, strategy: Strategy::RandomTested.name().to_owned(), seed: 3, budget: 10 };
    Store::open(&url).unwrap().begin_search("a", "config", &[run(0), run(1)]).unwrap();
    finish(&url, &mut Judge { pause: Duration::from_millis(5), ..Judge::quick() }).unwrap();
    let candidates = Store::open(&url).unwrap().candidates().unwrap();
    let cost = |run| candidates.iter().filter(|one| one.run == run).map(|one| one.seconds).sum::<f64>();
    assert!(cost(0) >= 0.05);
    assert_eq!(cost(0), cost(1));
}

#[test]
fn a_lease_that_ran_out_is_taken_over_and_the_late_result_is_refused() {
    let (_folder, url) = sqlite();
    begin(&url, 3);
    // A worker sleeps longer than its lease while the machine keeps its heart from beating: that is what a
    // judge looks like that completes the search itself before it answers.
    struct Late {
        url: String,
        is_first: bool,
    }
    impl Fitness for Late {
        fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64) -> Result<Verdict, String> {
            if std::mem::take(&mut self.is_first) {
                let mut raw = rusqlite::Connection::open(&self.url).unwrap();
                let transaction = raw.transaction().unwrap();
                transaction.execute("UPDATE evaluations SET lease_until = 0.0", []).unwrap();
                transaction.commit().unwrap();
                assert_eq!(finish(&self.url, &mut Judge::quick()), Ok(End::Complete));
                return Ok(Verdict::Scored(vec![99.0; 3]));
            }
            Judge::quick().evaluate(layer, protocol, seed)
        }
    }
    let mut late = Late { url: url.clone(), is_first: true };
    let end = work(&url, &options(), &mut late, &AtomicBool::new(false));
    assert_eq!(end, Ok(End::Complete));
    assert_sound(&url, 3);
    let is_late = |candidate: &Candidate| candidate.verdict == Some(Verdict::Scored(vec![99.0; 3]));
    assert!(!history(&url).iter().any(is_late));
}

#[test]
fn a_layer_that_kills_its_workers_is_rejected() {
    let (_folder, url) = sqlite();
    begin(&url, 2);
    assert!(finish(&url, &mut Judge { fails_after: 0, ..Judge::quick() }).is_err());
    let raw = rusqlite::Connection::open(&url).unwrap();
    assert_eq!(raw.execute("UPDATE evaluations SET attempts = 5", []).unwrap(), 1);
    drop(raw);
    assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
    let crashed: Vec<_> = history(&url)
        .into_iter()
        .filter(|candidate| matches!(&candidate.verdict, Some(Verdict::Rejected { reason: Reason::Crash, .. })))
        .collect();
    let keys: BTreeSet<&str> = crashed.iter().map(|candidate| candidate.key.as_str()).collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn databases_that_cannot_be_used_are_refused() {
    let (folder, url) = sqlite();
    begin(&url, 3);
    let mut store = Store::open(&url).unwrap();
    store.begin_search("a", "config", &runs(3)).expect("the same search goes on");
    assert_eq!(store.begin_search("b", "config", &runs(3)), Err(StoreError::OtherSearch));
    assert_eq!(store.config().unwrap(), "config");
    drop(store);
    let raw = rusqlite::Connection::open(&url).unwrap();
    raw.execute("UPDATE schema_version SET version = 99", []).unwrap();
    drop(raw);
    let newer = Store::open(&url).unwrap_err();
    assert_eq!(newer.to_string(), "the database has schema 99, and this program knows schemas up to 3");
    assert!(newer.help().is_some());

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no database at all, but a text of some length".repeat(100)).unwrap();
    let error = Store::open(text.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. } | StoreError::Damaged(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&text).unwrap().len(), 4500, "and it is left alone");
    let folder_itself = Store::open(folder.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(folder_itself, StoreError::Unreachable { .. }), "{folder_itself:?}");
    let nobody = Store::open("postgres://someone:secret@127.0.0.1:1/none").unwrap_err();
    assert!(nobody.to_string().contains("127.0.0.1:1/none") && !nobody.to_string().contains("secret"), "{nobody}");
    let empty = folder.path().join("empty.db");
    assert_eq!(Store::open(empty.to_str().unwrap()).unwrap().config(), Err(StoreError::NoSearch));
}

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    let (_folder, url) = sqlite();
    begin(&url, 3);
    finish(&url, &mut Judge::quick()).unwrap();
    let before = history(&url);
    // What came with the later versions is taken away; the second one had measurements without leases.
    let raw = rusqlite::Connection::open(&url).unwrap();
    let second = "DROP TABLE measurements; CREATE TABLE measurements (protocol TEXT, graph TEXT, seed BIGINT, \
                  network TEXT, score DOUBLE PRECISION, seconds DOUBLE PRECISION, measured_at DOUBLE PRECISION); \
                  INSERT INTO measurements VALUES ('long', 'one', -1, 'net', 0.1, 1.5, 2.5)";
    raw.execute_batch(second).unwrap();
    for version in [2, 1] {
        raw.execute("UPDATE schema_version SET version = ?", [version]).unwrap();
        let kept: Vec<f64> =
            Store::open(&url).unwrap().measurements("long").unwrap().iter().map(|one| one.score).collect();
        assert_eq!(kept, if version == 2 { vec![0.1] } else { vec![] });
        assert_eq!(history(&url), before);
        raw.execute("DROP TABLE measurements", []).unwrap();
    }
}

#[test]
fn a_full_disk_stops_the_search_and_leaves_the_database_whole() {
    let (_folder, url) = sqlite();
    begin(&url, 200);
    // SQLite refuses to grow as it does when the disk has no room.
    struct Full {
        url: String,
        left: u32,
    }
    impl Fitness for Full {
        fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64) -> Result<Verdict, String> {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                let raw = rusqlite::Connection::open(&self.url).unwrap();
                let fill = "CREATE TRIGGER full BEFORE INSERT ON candidates \
                            BEGIN SELECT raise(ABORT, 'database or disk is full'); END";
                raw.execute_batch(fill).unwrap();
                self.left = u32::MAX;
            }
            Judge::quick().evaluate(layer, protocol, seed)
        }
    }
    let mut full = Full { url: url.clone(), left: 20 };
    let error = work(&url, &options(), &mut full, &AtomicBool::new(false)).unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    rusqlite::Connection::open(&url).unwrap().execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
    assert_sound(&url, 200);
}

#[test]
fn the_average_winner_is_an_option() {
    let (_folder, url) = sqlite();
    begin(&url, 30);
    let mut options = options();
    options.evolution.winner = Winner::Average;
    let end = work(&url, &options, &mut Judge::quick(), &AtomicBool::new(false));
    assert_eq!(end, Ok(End::Complete));
    assert_sound(&url, 30);
}
