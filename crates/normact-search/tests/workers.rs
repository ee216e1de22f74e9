//! Workers in processes of their own, killed at random: the same history with one of them, nothing lost or done
//! twice with many, on SQLite and on PostgreSQL.

#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use normact_ir::Layer;
use normact_search::{Candidate, End, Fitness, Options, Protocol, Reason, SearchError, Store, StoreError, Verdict};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::{
    Judge, assert_sound, begin, databases, execute, finish, history, leased_again, number, options, postgresql, sqlite,
    undisturbed, wait_for, work_as,
};

/// Dies over one layer.
struct Mortal {
    judge: Judge,
    deadly: Option<String>,
}

impl Fitness for Mortal {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64, void: &AtomicBool) -> Result<Verdict, String> {
        if self.deadly.as_ref().is_some_and(|deadly| *deadly == normact_egraph::key(&layer.dag).0.to_string()) {
            std::process::abort();
        }
        self.judge.evaluate(layer, protocol, seed, void)
    }
}

/// Not a test of its own: the worker of the tests below, in a process of its own.
#[test]
fn worker_process() {
    let Ok(url) = std::env::var("NORMACT_TEST_WORKER") else { return };
    let log = std::env::var_os("NORMACT_TEST_LOG").map(PathBuf::from);
    let options = Options {
        is_alone: std::env::var("NORMACT_TEST_WORKERS").unwrap() == "1",
        max_deaths: std::env::var("NORMACT_TEST_MAX_DEATHS").map_or(Options::MAX_DEATHS, |most| most.parse().unwrap()),
        ..options()
    };
    let judge = Judge { pause: Duration::from_millis(10), log, ..Judge::quick() };
    let mut mortal = Mortal { judge, deadly: std::env::var("NORMACT_TEST_DEADLY").ok() };
    assert_eq!(work_as(&url, &options, &mut mortal), Ok(End::Complete));
}

fn worker(url: &str, workers: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "worker_process", "--nocapture"])
        .env("NORMACT_TEST_WORKER", url)
        .env("NORMACT_TEST_WORKERS", workers.to_string())
        .stdout(Stdio::null());
    command
}

fn spawn_worker(url: &str, log: &Path, workers: usize) -> Child {
    worker(url, workers).env("NORMACT_TEST_LOG", log).spawn().unwrap()
}

/// Runs workers and kills one of them now and then, `kills` times, then lets them finish. Every other kill comes
/// at any moment, for instance while a worker starts; the others come when judging a layer has begun.
fn with_killings(url: &str, log: &Path, workers: usize, kills: usize, seed: u64) {
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut children: Vec<Child> = (0..workers).map(|_| spawn_worker(url, log, workers)).collect();
    for kill in 0..kills {
        let victim = rng.random_range(0..workers);
        if kill % 2 == 0 {
            std::thread::sleep(Duration::from_millis(rng.random_range(20..120)));
        } else {
            let length = || std::fs::metadata(log).map_or(0, |metadata| metadata.len());
            let before = length();
            wait_for("layers are judged", || length() > before || children.iter_mut().all(has_ended));
        }
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

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

#[test]
fn one_worker_that_is_killed_again_and_again_writes_the_same_history() {
    let whole = undisturbed(60);
    for (_folder, url) in databases() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        begin(&url, 60);
        with_killings(&url, &log, 1, 16, 11);
        assert_eq!(whole, history(&url));
        // Only what was being judged when the process died is judged again, and kills did hit that.
        let again = leased_again(&url, &log);
        assert!((4..=16).contains(&again), "{again} layers were leased again after 16 kills");
    }
}

#[test]
fn many_workers_that_are_killed_at_random_judge_every_layer_once() {
    for (_folder, url) in databases() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        begin(&url, 150);
        with_killings(&url, &log, 4, 26, 12);
        assert_sound(&url, 150);
        let again = leased_again(&url, &log);
        assert!((2..=26).contains(&again), "{again} layers were leased again after 26 kills");
    }
}

#[test]
fn workers_outlive_a_server_that_hangs_up() {
    let Some(url) = postgresql() else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
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
    let again = leased_again(&url, &log);
    assert_eq!(again, 0, "a worker that lost its connection still has its lease");
}

#[test]
fn a_heart_without_a_connection_is_told_before_anything_is_leased() {
    let Some(url) = postgresql() else { return };
    begin(&url, 5);
    let role = format!("few_{}", std::process::id());
    execute(
        &url,
        &format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
    );
    let few = url.replace("normact@", &format!("{role}@"));
    let error = finish(&few, &mut Judge::quick()).unwrap_err();
    assert!(matches!(&error, SearchError::Store(StoreError::Crowded { .. })), "{error:?}");
    assert!(error.help().unwrap().contains("each worker needs two"), "{error:?}");
    assert_eq!(Store::open(&url).unwrap().evaluations().unwrap(), []);
    execute(&url, &format!("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}; DROP ROLE {role}"));
}

#[test]
fn a_single_worker_waits_for_what_a_lost_one_was_judging() {
    for (_folder, url) in databases() {
        begin(&url, 20);
        assert!(finish(&url, &mut Judge { fails_after: 7, ..Judge::quick() }).is_err());
        // As if the worker had been on another machine: nobody here can tell whether it is alive.
        let last = number(&url, "SELECT max(finished_at) FROM candidates");
        let until = number(&url, "SELECT max(proposed_at) FROM candidates") + 1.0;
        let away = format!(
            "UPDATE evaluations SET worker = 'away', token = 'its', lease_until = {until:?} WHERE state = 'leased'"
        );
        execute(&url, &away);
        assert_eq!(number(&url, "SELECT count(*) FROM evaluations WHERE state = 'leased'"), 1.0);
        assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
        assert_eq!(undisturbed(20), history(&url));
        let next = number(&url, &format!("SELECT min(finished_at) FROM candidates WHERE finished_at > {last:?}"));
        assert!(next >= until, "nothing came before the lease had run out");
    }
}

#[test]
fn a_layer_that_kills_its_workers_is_rejected() {
    let whole = undisturbed(5);
    let deadly =
        whole.iter().find(|candidate| matches!(candidate.verdict, Some(Verdict::Scored(_)))).unwrap().key.clone();
    for (_folder, url) in databases() {
        begin(&url, 5);
        let mut deaths = 0;
        let start = || {
            let mut worker = worker(&url, 1);
            worker.env("NORMACT_TEST_DEADLY", &deadly).env("NORMACT_TEST_MAX_DEATHS", "3").stderr(Stdio::null());
            worker.status().unwrap().success()
        };
        while !start() {
            deaths += 1;
            assert!(deaths < 20, "the layer is rejected at last");
        }
        let crashed: Vec<Candidate> = history(&url)
            .into_iter()
            .filter(|one| one.verdict.as_ref().and_then(Verdict::reason) == Some(Reason::Crash))
            .collect();
        let keys: BTreeSet<&str> = crashed.iter().map(|candidate| candidate.key.as_str()).collect();
        assert_eq!(keys, BTreeSet::from([deadly.as_str()]));
        let evaluations = Store::open(&url).unwrap().evaluations().unwrap();
        let judged = evaluations.iter().filter(|evaluation| evaluation.key == deadly).count();
        assert_eq!(deaths, 3 * judged, "three for each protocol under which it is judged");
        for candidate in crashed {
            let Some(Verdict::Rejected { detail, .. }) = candidate.verdict else { unreachable!("it is rejected") };
            assert_eq!(detail, "3 workers died while they judged it");
        }
    }
}

#[test]
fn by_default_a_healthy_layer_outlives_many_killed_workers() {
    let whole = undisturbed(5);
    let deadly =
        whole.iter().find(|candidate| matches!(candidate.verdict, Some(Verdict::Scored(_)))).unwrap().key.clone();
    let (_folder, url) = sqlite();
    begin(&url, 5);
    for _ in 0..20 {
        // As if it were killed from outside, always at the same layer.
        let killed = worker(&url, 1).env("NORMACT_TEST_DEADLY", &deadly).stderr(Stdio::null()).status().unwrap();
        assert!(!killed.success());
    }
    assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
    assert_eq!(whole, history(&url));
}
