//! Searches in one process: the same history each time, on SQLite and on PostgreSQL, whatever fails on the way.

#![allow(missing_docs)]

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use normact_ir::Layer;
use normact_search::{
    Candidate, End, Fitness, Notice, Options, Origin, Protocol, Reason, Run, SearchError, Space, Store, Strategy,
    Verdict, Winner, work,
};
use support::{
    Judge, assert_sound, begin, databases, finish, history, number, options, sqlite, undisturbed, wait_for, work_as,
};

#[test]
fn one_worker_writes_the_same_history_each_time() {
    let candidates = undisturbed(60);
    for (_folder, url) in databases() {
        begin(&url, 60);
        assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
        assert_sound(&url, 60);
        assert_eq!(candidates, history(&url), "{url}");
        assert_eq!(number(&url, "SELECT count(*) FROM workers"), 0.0, "who has ended is at work no more");
    }
    let children = candidates.iter().filter(|candidate| matches!(candidate.origin, Origin::Child { .. })).count();
    let count = |reason| {
        let found = |candidate: &&Candidate| candidate.verdict.as_ref().and_then(Verdict::reason) == Some(reason);
        candidates.iter().filter(found).count()
    };
    assert!(children > 40 && count(Reason::Structure) > 20 && count(Reason::Quality) > 10, "{children} children");
    assert!(candidates.iter().any(|candidate| candidate.is_duplicate));
}

#[test]
fn a_search_that_failed_or_was_stopped_goes_on_to_the_same_history() {
    let (_folder, url) = sqlite();
    begin(&url, 20);
    let mut failures = 0;
    // Every evaluation fails once before it succeeds.
    loop {
        match finish(&url, &mut Judge { fails_after: failures % 2, ..Judge::quick() }) {
            Ok(End::Complete) => break,
            Err(SearchError::Fitness { problem, .. }) => assert_eq!(problem, "the data are gone"),
            other => panic!("{other:?}"),
        }
        failures += 1;
    }
    assert!(failures > 60);
    assert_eq!(undisturbed(20), history(&url));
    let stopped = work(&url, &options(), &mut Judge::quick(), &AtomicBool::new(true), &|_| ());
    assert_eq!(stopped, Ok(End::Stopped));
}

/// Cannot judge one layer under one protocol, the first that it meets.
struct Stumbling {
    stone: Option<(String, Protocol)>,
}

impl Fitness for Stumbling {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64, void: &AtomicBool) -> Result<Verdict, String> {
        let this = (normact_egraph::key(&layer.dag).0.to_string(), protocol);
        if *self.stone.get_or_insert_with(|| this.clone()) == this {
            return Err("the device has no memory".to_owned());
        }
        Judge::quick().evaluate(layer, protocol, seed, void)
    }
}

#[test]
fn a_layer_that_cannot_be_judged_is_passed_over_in_the_end() {
    for (_folder, url) in databases() {
        begin(&url, 5);
        let mut judge = Stumbling { stone: None };
        for (failures, help) in [
            (1, "after 2 more such errors it passes over this layer"),
            (2, "after 1 more such errors it passes over this layer"),
            (3, "started again, the search passes over this layer"),
        ] {
            let error = finish(&url, &mut judge).unwrap_err();
            assert_eq!(error.to_string(), "the device has no memory");
            assert!(matches!(error, SearchError::Fitness { failures: found, .. } if found == failures), "{error:?}");
            let said = error.help().unwrap();
            assert!(said.contains(help), "{said}");
        }
        let notices = Mutex::new(vec![]);
        let notify = |notice: Notice| notices.lock().unwrap().push(notice.to_string());
        assert_eq!(work(&url, &options(), &mut judge, &AtomicBool::new(false), &notify), Ok(End::Complete));
        let detail = "judging it failed 3 times, the last time with: the device has no memory";
        let notices = notices.into_inner().unwrap();
        assert!(notices.len() == 1 && notices[0].contains(detail), "{notices:?}");
        assert_sound(&url, 5);
        let (stone, _) = judge.stone.unwrap();
        let crash = Verdict::Rejected { reason: Reason::Crash, detail: detail.to_owned() };
        let crashed: Vec<Candidate> =
            history(&url).into_iter().filter(|candidate| candidate.verdict.as_ref() == Some(&crash)).collect();
        assert!(!crashed.is_empty() && crashed.iter().all(|candidate| candidate.key == stone), "{crashed:?}");
        let evaluations = Store::open(&url).unwrap().evaluations().unwrap();
        let failed: Vec<_> = evaluations.iter().filter(|evaluation| evaluation.failures > 0).collect();
        let [failed] = failed[..] else { panic!("{failed:?}") };
        assert_eq!((failed.failures, failed.error.as_deref()), (3, Some("the device has no memory")));
    }
}

#[test]
fn without_a_limit_a_layer_that_cannot_be_judged_is_tried_for_ever() {
    let (_folder, url) = sqlite();
    begin(&url, 5);
    let options = Options { max_failures: 0, ..options() };
    for _ in 0..2 * Options::MAX_FAILURES {
        let error = work_as(&url, &options, &mut Judge { fails_after: 0, ..Judge::quick() }).unwrap_err();
        assert!(error.help().unwrap().contains("start the search again, with this layer"), "{error:?}");
    }
    assert_eq!(work_as(&url, &options, &mut Judge::quick()), Ok(End::Complete));
    assert_eq!(history(&url), undisturbed(5));
}

#[test]
fn each_run_bears_the_cost_of_its_layers() {
    let (_folder, url) = sqlite();
    // Two runs that draw the same.
    let run = |id| Run { id, strategy: Strategy::RandomTested.name().to_owned(), seed: 3, budget: 10, proposals: 1000 };
    Store::open(&url).unwrap().begin_search("a", "config", &[run(0), run(1)]).unwrap();
    finish(&url, &mut Judge { pause: Duration::from_millis(5), ..Judge::quick() }).unwrap();
    let candidates = Store::open(&url).unwrap().candidates().unwrap();
    let cost = |run| candidates.iter().filter(|one| one.run == run).map(|one| one.seconds).sum::<f64>();
    assert!(cost(0) >= 0.05);
    assert_eq!(cost(0), cost(1));
}

#[test]
fn a_run_ends_where_its_space_has_nothing_new() {
    let options = Options { space: Space::evonorm(1, false), ..options() };
    for (id, strategy) in [(0, Strategy::Evolution), (1, Strategy::RandomTested)] {
        let run = Run { id, strategy: strategy.name().to_owned(), seed: 3, budget: 1000, proposals: 300 };
        let (_folder, url) = sqlite();
        Store::open(&url).unwrap().begin_search("a", "config", &[run]).unwrap();
        assert_eq!(work_as(&url, &options, &mut Judge::quick()), Ok(End::Complete));
        let mut store = Store::open(&url).unwrap();
        assert_eq!(store.candidates().unwrap().len(), 300);
        assert!(store.is_complete().unwrap() && store.evaluations().unwrap().len() < 100);
    }
}

/// A worker that its heart could not keep alive: the judge ends the lease and completes the search itself before
/// it answers.
struct Late {
    url: String,
    is_first: bool,
}

impl Fitness for Late {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, seed: u64, void: &AtomicBool) -> Result<Verdict, String> {
        if std::mem::take(&mut self.is_first) {
            // Without its token the lease cannot be prolonged in between.
            support::execute(&self.url, "UPDATE evaluations SET lease_until = 0.0, token = ''");
            assert_eq!(finish(&self.url, &mut Judge::quick()), Ok(End::Complete));
            wait_for("the heart notices that the lease is lost", || void.load(Ordering::Relaxed));
            return if seed == 7 { Ok(Verdict::Scored(vec![99.0; 3])) } else { Err("it was told to end".to_owned()) };
        }
        Judge::quick().evaluate(layer, protocol, seed, void)
    }
}

#[test]
fn a_lease_that_ran_out_is_taken_over_and_the_late_result_is_refused() {
    for evaluation_seed in [7, 8] {
        for (_folder, url) in databases() {
            begin(&url, 3);
            let notices = Mutex::new(vec![]);
            let notify = |notice: Notice| notices.lock().unwrap().push(notice);
            let mut late = Late { url: url.clone(), is_first: true };
            let options = Options { evaluation_seed, ..options() };
            let end = work(&url, &options, &mut late, &AtomicBool::new(false), &notify);
            assert_eq!(end, Ok(End::Complete), "neither a late result nor a late error ends the search");
            assert_eq!(notices.into_inner().unwrap(), [Notice::LeaseLost]);
            assert_sound(&url, 3);
            let is_late = |candidate: &Candidate| candidate.verdict == Some(Verdict::Scored(vec![99.0; 3]));
            assert!(!history(&url).iter().any(is_late));
            let evaluations = Store::open(&url).unwrap().evaluations().unwrap();
            assert_eq!(evaluations.iter().filter(|evaluation| evaluation.attempts == 2).count(), 1);
        }
    }
}

#[test]
fn the_heart_prolongs_leases_and_tells_that_the_worker_is_alive() {
    /// Answers once the heart has beaten.
    struct Slow {
        url: String,
        is_first: bool,
    }
    impl Fitness for Slow {
        fn evaluate(
            &mut self,
            layer: &Layer,
            protocol: Protocol,
            seed: u64,
            void: &AtomicBool,
        ) -> Result<Verdict, String> {
            if std::mem::take(&mut self.is_first) {
                let until = "SELECT max(lease_until) FROM evaluations WHERE state = 'leased'";
                let seen = "SELECT max(seen_at) FROM workers";
                let (first_until, first_seen) = (number(&self.url, until), number(&self.url, seen));
                wait_for("the heart beats", || {
                    number(&self.url, until) > first_until + 0.1 && number(&self.url, seen) > first_seen + 0.1
                });
                assert!(!void.load(Ordering::Relaxed));
            }
            Judge::quick().evaluate(layer, protocol, seed, void)
        }
    }
    for (_folder, url) in databases() {
        begin(&url, 3);
        let options = Options { lease_seconds: 1.0, ..options() };
        assert_eq!(work_as(&url, &options, &mut Slow { url: url.clone(), is_first: true }), Ok(End::Complete));
        let evaluations = Store::open(&url).unwrap().evaluations().unwrap();
        assert!(evaluations.iter().all(|evaluation| evaluation.attempts == 1));
    }
}

#[test]
fn the_average_winner_is_an_option() {
    let (_folder, url) = sqlite();
    begin(&url, 30);
    let mut options = options();
    options.evolution.winner = Winner::Average;
    assert_eq!(work_as(&url, &options, &mut Judge::quick()), Ok(End::Complete));
    assert_sound(&url, 30);
}
