//! A database at its worst: the connection breaks before or after anything it is asked for, the disk is full, the
//! server forgets its last moments. Whatever happens, one worker comes to the same history and judges every layer
//! once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use normact_ir::{Layer, json};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::connection::Connection;
use super::database::{Columns, Database, Row, Value};
use super::sqlite::SqliteDatabase;
use super::{Candidate, Evaluation, Run, Store, StoreError};
use crate::fitness::{Fitness, Protocol, Reason, Verdict};
use crate::genotype::Space;
use crate::notice::Notice;
use crate::options::{Evolution, Options, Strategy};
use crate::worker::{End, SearchError, work_on};

/// When the connection breaks: before it does what it was asked for, or between that and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    Before,
    After,
}

/// Which of the calls break, for all connections of a search together.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    commits: u64,
    /// The commit after which the connection breaks.
    at_commit: Option<u64>,
    /// The share of calls at which it breaks.
    at_random: Option<(f64, ChaCha8Rng)>,
    at_next: bool,
    broken: u64,
}

impl Faults {
    fn at_commit(number: u64) -> Self {
        Self(Arc::new(Mutex::new(Plan { at_commit: Some(number), ..Plan::default() })))
    }

    fn at_random(share: f64, seed: u64) -> Self {
        let at_random = Some((share, ChaCha8Rng::seed_from_u64(seed)));
        Self(Arc::new(Mutex::new(Plan { at_random, ..Plan::default() })))
    }

    fn next(&self, is_commit: bool) -> Option<Break> {
        let mut plan = self.0.lock().unwrap();
        let number = plan.commits;
        plan.commits += u64::from(is_commit);
        let found = if std::mem::take(&mut plan.at_next) {
            Some(Break::Before)
        } else if is_commit && plan.at_commit == Some(number) {
            Some(Break::After)
        } else {
            let breaks = |(share, rng): &mut (f64, ChaCha8Rng)| {
                rng.random_bool(*share).then(|| if rng.random_bool(0.5) { Break::Before } else { Break::After })
            };
            plan.at_random.as_mut().and_then(breaks)
        };
        plan.broken += u64::from(found.is_some());
        found
    }
}

/// A connection that breaks.
struct Faulty {
    database: SqliteDatabase,
    faults: Faults,
    is_broken: bool,
}

impl Faulty {
    fn call<T>(
        &mut self,
        is_commit: bool,
        work: impl FnOnce(&mut SqliteDatabase) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.is_broken {
            return Err(StoreError::Lost("it was broken".to_owned()));
        }
        let found = self.faults.next(is_commit);
        self.is_broken = found.is_some();
        match found {
            None => work(&mut self.database),
            Some(Break::Before) => Err(StoreError::Lost("broken before".to_owned())),
            Some(Break::After) => work(&mut self.database).and(Err(StoreError::Lost("broken after".to_owned()))),
        }
    }
}

impl Database for Faulty {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.call(false, |database| database.execute(sql, values))
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.call(false, |database| database.query(sql, values))
    }

    fn insert(&mut self, columns: &Columns, rows: &[Vec<Value>]) -> Result<(), StoreError> {
        self.call(false, |database| database.insert(columns, rows))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.call(false, |database| database.batch(sql))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.call(false, SqliteDatabase::begin)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.call(true, SqliteDatabase::commit)
    }

    fn lock_schema(&mut self) -> Result<(), StoreError> {
        self.call(false, SqliteDatabase::lock_schema)
    }

    fn has_table(&mut self, name: &str) -> Result<bool, StoreError> {
        self.call(false, |database| database.has_table(name))
    }
}

/// A search in a folder of its own.
struct Search {
    folder: tempfile::TempDir,
}

impl Search {
    fn begin() -> Self {
        let search = Self { folder: tempfile::tempdir().unwrap() };
        let run = |(id, strategy): (i64, Strategy)| {
            let (strategy, budget) = (strategy.name().to_owned(), 4);
            Run { id, strategy, seed: 3, budget, proposals: budget * Run::PROPOSALS_PER_LAYER }
        };
        let runs: Vec<Run> =
            [(0, Strategy::Evolution), (1, Strategy::RandomTested), (2, Strategy::Random)].map(run).into();
        search.store().begin_search("a", "config", &runs).unwrap();
        search
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("search.db")
    }

    fn store(&self) -> Store {
        Store::open(self.file().to_str().unwrap()).unwrap()
    }

    /// A store whose connections are made so.
    fn store_with(
        &self,
        mut connect: impl FnMut(&Path) -> Box<dyn Database> + Send + 'static,
    ) -> Result<Store, StoreError> {
        let file = self.file();
        let mut connection = Connection::new(Box::new(move || Ok(connect(&file))));
        connection.pause = Duration::ZERO;
        Store::with("the place".to_owned(), connection, false)
    }

    /// Works with connections that are made so; the heart has one without faults.
    fn work_with(
        &self,
        connect: impl FnMut(&Path) -> Box<dyn Database> + Send + Clone + 'static,
        judge: &mut Judge,
    ) -> Result<End, SearchError> {
        let mut is_heart = true;
        let mut open = || {
            is_heart = !is_heart;
            if is_heart { Ok(self.store()) } else { self.store_with(connect.clone()) }
        };
        work_on(&mut open, &options(), judge, &AtomicBool::new(false), &|_| ())
    }

    fn work(&self, faults: &Faults, judge: &mut Judge) -> Result<End, SearchError> {
        self.work_with(faulty(faults), judge)
    }

    /// The history without times.
    fn history(&self) -> Vec<Candidate> {
        let mut candidates = self.store().candidates().unwrap();
        for candidate in &mut candidates {
            (candidate.seconds, candidate.finished_at) = (0.0, None);
        }
        candidates
    }

    fn evaluations(&self) -> Vec<Evaluation> {
        self.store().evaluations().unwrap()
    }
}

fn options() -> Options {
    Options {
        space: Space::evonorm(3, false),
        mere_statistics: true,
        evolution: Evolution { population: 20, tournament: 0.3, initial: 2, ..Evolution::default() },
        fixed: vec![],
        evaluation_seed: 7,
        lease_seconds: 60.0,
        is_alone: true,
        max_deaths: Options::MAX_DEATHS,
        max_failures: Options::MAX_FAILURES,
    }
}

/// Makes connections that break as planned.
fn faulty(faults: &Faults) -> impl FnMut(&Path) -> Box<dyn Database> + Send + Clone + use<> {
    let faults = faults.clone();
    move |file| {
        let database = SqliteDatabase::open(file, false).unwrap();
        Box::new(Faulty { database, faults: faults.clone(), is_broken: false })
    }
}

/// Scores that depend on the layer alone.
#[derive(Default)]
struct Judge {
    /// The layers that it has judged.
    judged: u64,
    /// Whether it fails the first time it meets a layer, with those it has failed over.
    stumbles: Option<Vec<String>>,
    /// What happens while it judges the layer of that number.
    happens: Option<(u64, Box<dyn FnMut()>)>,
}

impl Fitness for Judge {
    fn evaluate(&mut self, layer: &Layer, protocol: Protocol, _: u64, _: &AtomicBool) -> Result<Verdict, String> {
        let text = format!("{} {}", json::to_json(layer), protocol.name());
        if let Some(met) = &mut self.stumbles
            && !met.contains(&text)
        {
            met.push(text);
            return Err("it stumbled".to_owned());
        }
        if let Some((_, mut happens)) = self.happens.take_if(|(number, _)| *number == self.judged) {
            happens();
        }
        self.judged += 1;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let mut rng = ChaCha8Rng::seed_from_u64(hasher.finish());
        if rng.random_bool(0.3) {
            return Ok(Verdict::Rejected { reason: Reason::Quality, detail: "too little".to_owned() });
        }
        Ok(Verdict::Scored(vec![rng.random_range(0.0..1.0)]))
    }
}

/// The history of a search that nothing disturbs, how many layers are judged in it, and how many commits it takes.
fn undisturbed() -> (Vec<Candidate>, u64, u64) {
    let (search, mut judge, faults) = (Search::begin(), Judge::default(), Faults::default());
    assert_eq!(search.work(&faults, &mut judge), Ok(End::Complete));
    let commits = faults.0.lock().unwrap().commits;
    assert!(judge.judged >= 6 && commits > 2 * judge.judged);
    (search.history(), judge.judged, commits)
}

fn assert_same(search: &Search, history: &[Candidate]) {
    let found = search.history();
    if let Some((found, undisturbed)) = found.iter().zip(history).find(|(found, undisturbed)| found != undisturbed) {
        panic!("{found:?} instead of {undisturbed:?}");
    }
    assert_eq!(found.len(), history.len());
}

fn assert_judged_once(search: &Search, judge: &Judge, attempts: u64) {
    let evaluations = search.evaluations();
    assert_eq!(judge.judged, evaluations.len() as u64, "each layer is judged once");
    for evaluation in evaluations {
        assert!(evaluation.is_done && evaluation.attempts == attempts, "{evaluation:?}");
    }
}

#[test]
fn the_reply_to_any_commit_may_be_lost() {
    let (history, _, commits) = undisturbed();
    for commit in 0..commits {
        let (search, mut judge) = (Search::begin(), Judge::default());
        println!("commit {commit}");
        let faults = Faults::at_commit(commit);
        assert_eq!(search.work(&faults, &mut judge), Ok(End::Complete));
        assert_eq!(faults.0.lock().unwrap().broken, 1, "commit {commit} was made, and nobody heard of it");
        assert_same(&search, &history);
        assert_judged_once(&search, &judge, 1);
    }
}

#[test]
fn the_connection_may_break_at_any_moment() {
    let (history, ..) = undisturbed();
    for seed in 0..60 {
        println!("seed {seed}");
        let (search, mut judge) = (Search::begin(), Judge::default());
        let faults = Faults::at_random(0.05, seed);
        assert_eq!(search.work(&faults, &mut judge), Ok(End::Complete));
        assert!(faults.0.lock().unwrap().broken > 0);
        assert_same(&search, &history);
        assert_judged_once(&search, &judge, 1);
    }
}

#[test]
fn what_is_given_back_and_taken_over_may_break_too() {
    let (history, ..) = undisturbed();
    for seed in 0..30 {
        println!("seed {seed}");
        let (search, mut judge) = (Search::begin(), Judge { stumbles: Some(vec![]), ..Judge::default() });
        let faults = Faults::at_random(0.05, seed);
        let mut errors = 0;
        loop {
            match search.work(&faults, &mut judge) {
                Ok(end) => break assert_eq!(end, End::Complete),
                Err(SearchError::Fitness { .. }) => errors += 1,
                Err(SearchError::Store(error)) => panic!("{error}"),
            }
        }
        assert_same(&search, &history);
        // Twice taken and once failed, however often that was said.
        assert_judged_once(&search, &judge, 2);
        assert_eq!(errors, judge.judged);
        assert!(search.evaluations().iter().all(|evaluation| evaluation.failures == 1));
    }
}

#[test]
fn a_lease_is_given_back_once() {
    let search = Search::begin();
    let mut judge = Judge { stumbles: Some(vec![]), ..Judge::default() };
    assert!(search.work(&Faults::default(), &mut judge).is_err());
    let mut store = search.store();
    let lease = |token: &str| super::Lease { worker: "me".to_owned(), token: token.to_owned(), seconds: 60.0 };
    let task = store.take_over(&lease("first")).unwrap().unwrap();
    assert_eq!((task.attempts, task.failures, task.deaths()), (2, 1, 0));
    assert_eq!(store.take_over(&lease("first")).unwrap().as_ref(), Some(&task), "it is this lease's already");
    assert_eq!(store.take_over(&lease("second")).unwrap(), None);
    for _ in 0..2 {
        store.release(&task).unwrap();
    }
    let task = store.take_over(&lease("second")).unwrap().unwrap();
    assert_eq!((task.attempts, task.failures), (2, 1), "what is given back counts for nothing");
    assert!(!store.prolong("first", 60.0).unwrap() && store.prolong("second", 60.0).unwrap());
    for _ in 0..2 {
        store.fail(&task, "again").unwrap();
    }
    let task = store.take_over(&lease("third")).unwrap().unwrap();
    assert_eq!((task.attempts, task.failures, task.error.as_deref()), (3, 2, Some("again")));
    let verdict = Verdict::Scored(vec![0.5]);
    for _ in 0..2 {
        assert!(store.complete(&task, &verdict, 1.0).unwrap());
    }
    let late = super::Task { token: "second".to_owned(), ..task };
    assert!(!store.complete(&late, &Verdict::Scored(vec![0.9]), 1.0).unwrap());
}

#[test]
fn a_full_disk_stops_the_search_and_leaves_the_database_whole() {
    let (history, ..) = undisturbed();
    let search = Search::begin();
    let pages = |search: &Search| {
        let raw = rusqlite::Connection::open(search.file()).unwrap();
        // Tables that earlier versions had leave room behind.
        raw.execute_batch("VACUUM").unwrap();
        raw.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    // The database may not grow any more, then by one page each time until the search is complete.
    let (mut most, mut stops) = (pages(&search), 0);
    loop {
        let small = move |file: &Path| -> Box<dyn Database> {
            let mut database = SqliteDatabase::open(file, false).unwrap();
            database.query(&format!("PRAGMA max_page_count = {most}"), &[]).unwrap();
            Box::new(database)
        };
        match search.work_with(small, &mut Judge::default()) {
            Ok(end) => break assert_eq!(end, End::Complete),
            Err(error) => assert_eq!(error, SearchError::Store(StoreError::DiskFull)),
        }
        (most, stops) = (most + 1, stops + 1);
    }
    assert!(stops > 3, "{stops}");
    assert_same(&search, &history);
}

#[test]
fn a_server_may_forget_its_last_moments() {
    let (history, judged, _) = undisturbed();
    for number in 0..judged {
        println!("layer {number}");
        let (search, faults) = (Search::begin(), Faults::default());
        let (file, breaking) = (search.file(), faults.clone());
        // What the lease brought in is gone, as after a breakdown of a server that did not write it through.
        let forget = move || {
            let raw = rusqlite::Connection::open(&file).unwrap();
            // All that the run proposed after the layer before.
            let sql = "
                BEGIN IMMEDIATE;
                CREATE TEMP TABLE lost AS SELECT run, number, finish FROM candidates AS one
                    WHERE run = (SELECT run FROM candidates WHERE state = 'waiting') AND number > coalesce(
                        (SELECT max(number) FROM candidates AS before WHERE before.run = one.run
                            AND judged = 1 AND duplicate = 0 AND state <> 'waiting'), -1);
                DELETE FROM candidates WHERE (run, number) IN (SELECT run, number FROM lost);
                DELETE FROM evaluations WHERE state = 'leased';
                UPDATE runs SET spent = spent - 1, proposed = proposed - (SELECT count(*) FROM lost),
                    finished = finished - (SELECT count(finish) FROM lost) WHERE id IN (SELECT run FROM lost);
                COMMIT";
            raw.execute_batch(sql).unwrap();
            breaking.0.lock().unwrap().at_next = true;
        };
        let mut judge = Judge { happens: Some((number, Box::new(forget))), ..Judge::default() };
        assert_eq!(search.work(&faults, &mut judge), Ok(End::Complete));
        assert_eq!(faults.0.lock().unwrap().broken, 1);
        assert_same(&search, &history);
        assert_judged_once(&search, &judge, 1);
    }
}

#[test]
fn a_heart_that_cannot_beat_says_so_and_beats_again() {
    let (search, heart) = (Search::begin(), Faults::default());
    let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
    let (told, breaking) = (Arc::clone(&notices), heart.clone());
    let breakdown = move || {
        let wait_for = |count: usize| {
            let start = Instant::now();
            while told.lock().unwrap().len() < count {
                assert!(start.elapsed() < Duration::from_secs(60), "{:?}", told.lock().unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        breaking.0.lock().unwrap().at_random = Some((1.0, ChaCha8Rng::seed_from_u64(0)));
        wait_for(1);
        breaking.0.lock().unwrap().at_random = None;
        wait_for(2);
    };
    let mut judge = Judge { happens: Some((1, Box::new(breakdown))), ..Judge::default() };
    let mut is_heart = true;
    let mut open = || {
        is_heart = !is_heart;
        if is_heart { search.store_with(faulty(&heart)) } else { Ok(search.store()) }
    };
    let options = Options { lease_seconds: 0.1, ..options() };
    let notify = |notice| notices.lock().unwrap().push(notice);
    assert_eq!(work_on(&mut open, &options, &mut judge, &AtomicBool::new(false), &notify), Ok(End::Complete));
    let notices = notices.lock().unwrap();
    assert!(matches!(notices[..], [Notice::NoBeat { .. }, Notice::BeatAgain]), "{notices:?}");
    assert_judged_once(&search, &judge, 1);
}
