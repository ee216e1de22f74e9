//! Trainings after the search: each is made once, by whichever worker takes it, also when workers are killed.

#![allow(missing_docs)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use normact_search::{End, Notice, SearchError, Store, Training, Trainings, measure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{begin, databases, execute};

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

/// Makes the trainings of the tests, with leases that do not run out while a test runs.
fn work(
    url: &str,
    train: &mut dyn FnMut(&Training) -> Result<f64, String>,
    stop: &AtomicBool,
) -> Result<End, SearchError> {
    let wanted = wanted();
    let trainings = Trainings { protocol: "long", wanted: &wanted, lease_seconds: 300.0, max_deaths: 5 };
    measure(url, &trainings, train, stop, &|_: Notice| ())
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
    for (_folder, url) in databases() {
        begin(&url, 3);
        let made = Mutex::new(vec![]);
        let one_worker = || {
            let mut train = |training: &Training| {
                made.lock().unwrap().push(training.clone());
                std::thread::sleep(Duration::from_millis(2));
                Ok(score(training))
            };
            work(&url, &mut train, &AtomicBool::new(false))
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|_| scope.spawn(one_worker)).collect();
            workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap(), Ok(End::Complete)));
        });
        assert_eq!(made.into_inner().unwrap().len(), wanted().len());
        assert_complete(&url);
        // Another protocol begins anew beside the old results.
        assert!(Store::open(&url).unwrap().measurements("short").unwrap().is_empty());
    }
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
    assert_eq!(work(&url, &mut train, &AtomicBool::new(false)), Ok(End::Complete));
}

#[test]
fn what_a_killed_worker_had_begun_is_taken_over_at_once() {
    const SEED: u64 = 3;
    const KILLS: usize = 12;
    println!("seed {SEED}");
    for (_folder, url) in databases() {
        begin(&url, 3);
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log").to_str().unwrap().to_owned();
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
    for (_folder, url) in databases() {
        begin(&url, 3);
        let stop = AtomicBool::new(false);
        // More often than workers may die over one.
        for _ in 0..10 {
            let failed = work(&url, &mut |_| Err("no room on the device".to_owned()), &stop).unwrap_err();
            assert_eq!(failed.to_string(), "no room on the device");
            assert!(failed.help().unwrap().contains("with this layer: layer 0"), "{failed:?}");
        }
        let mut train = |training: &Training| {
            stop.store(true, Ordering::Relaxed);
            Ok(score(training))
        };
        assert_eq!(work(&url, &mut train, &stop), Ok(End::Stopped));
        assert_eq!(Store::open(&url).unwrap().measurements("long").unwrap().len(), 1);
        stop.store(false, Ordering::Relaxed);
        assert_eq!(work(&url, &mut |training| Ok(score(training)), &stop), Ok(End::Complete));
        assert_complete(&url);
    }
}

#[test]
fn a_late_result_is_refused_and_a_training_that_kills_its_workers_is_told() {
    for (_folder, url) in databases() {
        begin(&url, 3);
        let mut is_first = true;
        let mut train = |training: &Training| {
            if std::mem::replace(&mut is_first, false) {
                // As if the worker had slept for so long that another one had begun the training, and died.
                execute(&url, "UPDATE measurements SET token = 'other', attempts = 5, worker = 'dead'");
                return Ok(f64::MAX);
            }
            Ok(score(training))
        };
        let error = work(&url, &mut train, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.to_string(), "5 workers have died over a training with seed 18446744073709551615 in one");
        assert!(error.help().unwrap().contains("layer 0"), "{error:?}");
        let measurements = Store::open(&url).unwrap().measurements("long").unwrap();
        assert_eq!(measurements.len(), wanted().len() - 1, "the others are made all the same");
        assert!(measurements.iter().all(|one| one.score == score(&one.training)));
    }
}
