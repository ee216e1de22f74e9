//! Trainings after the search: each is made once, by whichever worker takes it, also when workers are killed.

#![allow(missing_docs)]

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use normact_search::{End, SearchError, Store, Training, measure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LEASE_SECONDS: f64 = 30.0;

fn wanted() -> Vec<Training> {
    let training = |number: u64| Training {
        graph: format!("layer {}", number / 6),
        seed: u64::MAX - number % 3,
        network: if number.is_multiple_of(2) { "one".to_owned() } else { "two".to_owned() },
    };
    (0..60).map(training).collect()
}

fn score(training: &Training) -> f64 {
    (training.graph.len() as f64).sqrt() + (training.seed % 7) as f64 / 3.0
}

fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("search.db").to_str().unwrap().to_owned();
    (folder, url)
}

/// A database of its own on the server that `NORMACT_POSTGRES` names, if there is one.
fn postgresql() -> Option<String> {
    let Ok(server) = std::env::var("NORMACT_POSTGRES") else {
        eprintln!("not tested on PostgreSQL: NORMACT_POSTGRES names no server");
        return None;
    };
    let name = format!("measuring_{}", std::process::id());
    let mut client = postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).unwrap();
    client.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
    Some(format!("{server}/{name}"))
}

/// Every training is there, with its score.
fn assert_complete(url: &str) {
    let measurements = Store::open(url).unwrap().measurements("long").unwrap();
    let trainings: HashSet<Training> = measurements.iter().map(|one| one.training.clone()).collect();
    assert_eq!(trainings, wanted().into_iter().collect());
    assert_eq!(measurements.len(), wanted().len());
    assert!(measurements.iter().all(|one| one.score == score(&one.training) && one.seconds >= 0.0));
}

#[test]
fn several_workers_make_every_training_once() {
    let (_folder, url) = sqlite();
    let made = Mutex::new(vec![]);
    let work = || {
        let mut train = |training: &Training| {
            made.lock().unwrap().push(training.clone());
            std::thread::sleep(Duration::from_millis(2));
            Ok(score(training))
        };
        measure(&url, "long", &wanted(), LEASE_SECONDS, &mut train, &AtomicBool::new(false))
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap(), Ok(End::Complete)));
    });
    assert_eq!(made.into_inner().unwrap().len(), wanted().len());
    assert_complete(&url);
    // Another protocol begins anew beside the old results.
    assert!(Store::open(&url).unwrap().measurements("short").unwrap().is_empty());
}

/// Not a test of its own: the worker of the test below, in a process of its own.
#[test]
fn worker_process() {
    let Ok(url) = std::env::var("NORMACT_TEST_WORKER") else { return };
    let log = std::env::var("NORMACT_TEST_LOG").unwrap();
    let mut train = |training: &Training| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        file.write_all(format!("{training:?}\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        Ok(score(training))
    };
    let end = measure(&url, "long", &wanted(), LEASE_SECONDS, &mut train, &AtomicBool::new(false));
    assert_eq!(end, Ok(End::Complete));
}

#[test]
fn what_a_killed_worker_had_begun_is_taken_over_at_once() {
    const SEED: u64 = 3;
    const KILLS: usize = 12;
    println!("seed {SEED}");
    let (folder, path) = sqlite();
    for (number, url) in [Some(path), postgresql()].into_iter().flatten().enumerate() {
        let log = folder.path().join(format!("log{number}")).to_str().unwrap().to_owned();
        let spawn = || -> Child {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "worker_process", "--nocapture"])
                .envs([("NORMACT_TEST_WORKER", url.as_str()), ("NORMACT_TEST_LOG", &log)])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut workers = [spawn(), spawn(), spawn()];
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(rng.random_range(10..80)));
            let victim = rng.random_range(0..workers.len());
            workers[victim].kill().unwrap();
            workers[victim].wait().unwrap();
            workers[victim] = spawn();
        }
        workers.into_iter().for_each(|mut worker| assert!(worker.wait().unwrap().success()));
        assert_complete(&url);
        let mut made: BTreeMap<String, usize> = BTreeMap::new();
        let lines = std::fs::read_to_string(&log).unwrap();
        lines.lines().for_each(|line| *made.entry(line.to_owned()).or_default() += 1);
        let again: usize = made.values().map(|times| times - 1).sum();
        assert!(again <= KILLS, "{again} trainings were made again after {KILLS} kills");
    }
}

#[test]
fn a_failure_gives_the_training_back_and_a_stop_ends_after_it() {
    let (_folder, url) = sqlite();
    let stop = AtomicBool::new(false);
    let measure = |train: &mut dyn FnMut(&Training) -> Result<f64, String>| {
        measure(&url, "long", &wanted(), LEASE_SECONDS, train, &stop)
    };
    // More often than workers may die over one.
    for _ in 0..10 {
        let failed = measure(&mut |_| Err("no room on the device".to_owned()));
        assert_eq!(failed, Err(SearchError::Fitness("no room on the device".to_owned())));
    }
    let end = measure(&mut |training| {
        stop.store(true, Ordering::Relaxed);
        Ok(score(training))
    });
    assert_eq!(end, Ok(End::Stopped));
    assert_eq!(Store::open(&url).unwrap().measurements("long").unwrap().len(), 1);
    stop.store(false, Ordering::Relaxed);
    assert_eq!(measure(&mut |training| Ok(score(training))), Ok(End::Complete));
    assert_complete(&url);
}

#[test]
fn a_late_result_is_refused_and_a_training_that_kills_its_workers_is_told() {
    let (_folder, url) = sqlite();
    let raw = || rusqlite::Connection::open(&url).unwrap();
    let mut is_first = true;
    let end = measure(
        &url,
        "long",
        &wanted(),
        LEASE_SECONDS,
        &mut |training| {
            if std::mem::replace(&mut is_first, false) {
                // As if the worker had slept for so long that another one had begun the training.
                raw().execute("UPDATE measurements SET token = 'other', attempts = 5, worker = 'dead'", []).unwrap();
                return Ok(f64::MAX);
            }
            Ok(score(training))
        },
        &AtomicBool::new(false),
    );
    let message = end.unwrap_err().to_string();
    assert_eq!(message, "5 workers have died while they trained layer 0 with seed 18446744073709551615 in one");
    let measurements = Store::open(&url).unwrap().measurements("long").unwrap();
    assert_eq!(measurements.len(), wanted().len() - 1, "the others are made all the same");
    assert!(measurements.iter().all(|one| one.score == score(&one.training)));
}
