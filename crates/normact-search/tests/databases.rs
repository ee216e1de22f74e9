//! Databases that cannot be used, are from an earlier version, or have no room: what is said, and that nothing is
//! broken.

#![allow(missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use normact_search::{End, SearchError, Store, StoreError, Training, Trainings, measure};
use std::sync::atomic::AtomicBool;
use support::{
    Judge, assert_sound, begin, databases, execute, finish, history, postgresql, runs, server, sqlite, undisturbed,
};

#[test]
fn another_search_is_refused_with_what_the_database_holds() {
    for (_folder, url) in databases() {
        begin(&url, 3);
        let mut store = Store::open(&url).unwrap();
        store.begin_search("a", "config", &runs(3)).expect("the same search goes on");
        let StoreError::OtherSearch { place, config } = store.begin_search("b", "another", &runs(3)).unwrap_err()
        else {
            panic!("another search was begun in one database")
        };
        assert_eq!(config, "config");
        assert!(url.starts_with("postgres") || place == url, "{place}");
        assert_eq!(store.config().unwrap(), "config");
    }
}

#[test]
fn a_search_with_other_keys_is_not_gone_on_with() {
    for (_folder, url) in databases() {
        begin(&url, 3);
        execute(&url, "UPDATE search SET keys = 'older'");
        let error = Store::open(&url).unwrap().begin_search("a", "config", &runs(3)).unwrap_err();
        let StoreError::OtherKeys { found, known, .. } = &error else { panic!("{error:?}") };
        assert_eq!((found.as_str(), known.as_str()), ("older", normact_egraph::version()));
        assert!(error.help().unwrap().contains("finish the search with the program that began it"), "{error:?}");
        assert!(Store::open_existing(&url).unwrap().candidates().is_ok(), "what is there can be read");
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    for (_folder, url) in databases() {
        begin(&url, 3);
        execute(&url, "UPDATE schema_version SET version = 99");
        for newer in [Store::open(&url).unwrap_err(), Store::open_existing(&url).unwrap_err()] {
            assert_eq!(newer.to_string(), "the database has schema 99, and this program knows schemas up to 4");
            assert!(newer.help().is_some());
        }
    }
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let (folder, url) = sqlite();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no database at all, but a text of some length".repeat(100)).unwrap();
    let error = Store::open(text.to_str().unwrap()).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. } | StoreError::Damaged(_)), "{error:?}");
    assert_eq!(std::fs::read_to_string(&text).unwrap().len(), 4500, "and it is left alone");
    let folder_itself = Store::open(folder.path().to_str().unwrap()).unwrap_err();
    assert!(matches!(folder_itself, StoreError::Unreachable { .. }), "{folder_itself:?}");
    for memory in [":memory:", ""] {
        let error = Store::open(memory).unwrap_err();
        assert!(error.to_string().contains("a search needs a file"), "{error}");
    }
    let nobody = Store::open("postgres://someone:secret@127.0.0.1:1/none").unwrap_err();
    assert!(matches!(nobody, StoreError::Unreachable { .. }), "{nobody:?}");
    assert!(nobody.to_string().contains("127.0.0.1:1/none") && !nobody.to_string().contains("secret"), "{nobody}");
    assert_eq!(Store::open(&url).unwrap().config(), Err(StoreError::NoSearch));
}

#[test]
fn urls_of_other_databases_do_not_become_folders() {
    for url in ["mysql://me:secret@host/found", "postgre://me:secret@host/found"] {
        let error = Store::open(url).unwrap_err();
        assert!(matches!(error, StoreError::UnknownKind { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
        let scheme = url.split_once("//").unwrap().0;
        assert!(!Path::new(scheme).exists(), "{scheme}");
    }
}

#[test]
fn to_look_for_a_search_makes_none() {
    let (folder, url) = sqlite();
    let nothing = Store::open_existing(&url).unwrap_err();
    assert_eq!(nothing, StoreError::NoDatabase { place: url.clone() });
    assert!(nothing.help().unwrap().contains("begin one"));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is made");
    assert_eq!(finish(&url, &mut Judge::quick()), Err(SearchError::Store(nothing)));

    std::fs::write(&url, "").unwrap();
    assert_eq!(Store::open_existing(&url).unwrap_err(), StoreError::NoSearch, "an empty file holds no search");
    if let Some(url) = postgresql() {
        assert_eq!(Store::open_existing(&url).unwrap_err(), StoreError::NoSearch);
        assert_eq!(support::number(&url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0.0);
    }
    for (_folder, url) in databases() {
        begin(&url, 3);
        finish(&url, &mut Judge::quick()).unwrap();
        assert_eq!(Store::open_existing(&url).unwrap().candidates().unwrap().len(), history(&url).len());
    }
}

/// Makes of a database of today one of the first version.
const BACK_TO_THE_FIRST: &str = "
    DROP INDEX candidates_waiting;
    CREATE INDEX candidates_by_key ON candidates (key, protocol, state);
    CREATE INDEX candidates_of_run_by_key ON candidates (run, key);
    ALTER TABLE evaluations DROP COLUMN failures;
    ALTER TABLE evaluations DROP COLUMN error;
    ALTER TABLE candidates DROP COLUMN judged;
    ALTER TABLE runs DROP COLUMN most_proposed;
    ALTER TABLE search DROP COLUMN keys;
    DROP TABLE measurements;
    UPDATE schema_version SET version = 1";

#[test]
fn a_database_of_the_first_version_is_brought_up_to_date() {
    for (_folder, url) in databases() {
        begin(&url, 20);
        // In the middle of the search.
        assert!(finish(&url, &mut Judge { fails_after: 25, ..Judge::quick() }).is_err());
        let before = history(&url);
        execute(&url, BACK_TO_THE_FIRST);
        let mut store = Store::open_existing(&url).unwrap();
        assert_eq!(history(&url), before);
        assert_eq!(store.measurements("long").unwrap(), []);
        store.begin_search("a", "config", &runs(20)).expect("its keys are those of today");
        assert_eq!(store.runs().unwrap(), runs(20));
        assert_eq!(finish(&url, &mut Judge::quick()), Ok(End::Complete));
        assert_eq!(history(&url), undisturbed(20), "it goes on as if it had been of this version from the start");
    }
}

#[test]
fn measurements_from_before_they_had_leases_stay() {
    for (_folder, url) in databases() {
        begin(&url, 3);
        execute(
            &url,
            "DROP TABLE measurements;
             CREATE TABLE measurements (protocol TEXT NOT NULL, graph TEXT NOT NULL, seed BIGINT NOT NULL,
                 network TEXT NOT NULL, score DOUBLE PRECISION NOT NULL, seconds DOUBLE PRECISION NOT NULL,
                 measured_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (protocol, graph, seed, network));
             INSERT INTO measurements VALUES ('long', 'one', -1, 'net', 0.1, 1.5, 2.5);
             UPDATE schema_version SET version = 3",
        );
        let training = |seed| Training { graph: "one".to_owned(), seed, network: "net".to_owned() };
        let wanted = [training(u64::MAX), training(7)];
        let trainings = Trainings { protocol: "long", wanted: &wanted, lease_seconds: 60.0, max_deaths: 0 };
        let mut made = vec![];
        let mut train = |training: &Training| {
            made.push(training.clone());
            Ok(0.2)
        };
        measure(&url, &trainings, &mut train, &AtomicBool::new(false), &|_| ()).unwrap();
        assert_eq!(made, [training(7)]);
        let mut scores: Vec<f64> =
            Store::open(&url).unwrap().measurements("long").unwrap().iter().map(|one| one.score).collect();
        scores.sort_by(f64::total_cmp);
        assert_eq!(scores, [0.1, 0.2]);
    }
}

/// A file system of a few megabytes, unmounted in the end. Mounting takes a privilege that not every machine gives.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, megabytes: u32) -> Option<Self> {
        let place = folder.join("disk");
        std::fs::create_dir(&place).unwrap();
        let size = format!("size={megabytes}m,mode=0777");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        eprintln!("not tested on a disk that is full: this takes the right to mount one");
        None
    }

    /// Leaves no room, or makes it again.
    fn fill(&self) {
        let filled = std::fs::write(self.0.join("filling"), vec![0; 1 << 26]);
        assert!(filled.is_err(), "the disk is full");
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filling")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn assert_outlives_a_full_disk(url: &str, disk: &Disk, budget: u64) {
    begin(url, budget);
    assert!(finish(url, &mut Judge { fails_after: 20, ..Judge::quick() }).is_err());
    disk.fill();
    let error = finish(url, &mut Judge::quick()).unwrap_err();
    assert_eq!(error, SearchError::Store(StoreError::DiskFull));
    assert!(error.help().unwrap().contains("make room"));
    disk.empty();
    assert_eq!(finish(url, &mut Judge::quick()), Ok(End::Complete));
    assert_sound(url, budget);
    assert_eq!(history(url), undisturbed(budget));
}

#[test]
fn a_full_disk_stops_the_search_and_leaves_the_database_whole() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(folder.path(), 16) else { return };
    assert_outlives_a_full_disk(disk.0.join("search.db").to_str().unwrap(), &disk, 200);
}

#[test]
fn a_full_disk_of_a_server_stops_the_search_and_leaves_the_database_whole() {
    let Some(server) = server() else { return };
    // The server has to reach the folder.
    let folder =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let Some(disk) = Disk::new(folder.path(), 24) else { return };
    let tables = disk.0.join("tables");
    std::fs::create_dir(&tables).unwrap();
    let owner = std::process::Command::new("chown").arg("nobody").arg(&tables).status();
    assert!(owner.unwrap().success());
    let (space, name) = (format!("small_{}", std::process::id()), format!("full_{}", std::process::id()));
    let administer = |sql: &str| execute(&format!("{server}/postgres"), sql);
    administer(&format!("CREATE TABLESPACE {space} LOCATION '{}'", tables.display()));
    administer(&format!("CREATE DATABASE {name} TABLESPACE {space}"));
    assert_outlives_a_full_disk(&format!("{server}/{name}"), &disk, 200);
    administer(&format!("DROP DATABASE {name}"));
    administer(&format!("DROP TABLESPACE {space}"));
}
