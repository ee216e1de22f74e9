//! `normact search`: from a file to a report, gone on with after a kill, and what is said about bad files.

use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use normact::search::Config;

use crate::support::{normact, root, run};

/// A search of seconds: one small network, few steps.
fn small(folder: &Path, workers: usize) -> String {
    let text = format!(
        r#"
[search]
strategies = ["evolution", "random-tested", "random"]
seeds = [1]
budget = 12
baselines = ["evonorm_s0"]
out = "{}"
workers = {workers}

[space]
nodes = 2
mere_statistics = false

[evolution]
population = 10
tournament = 0.5
winner = "average"

[task]
batch = 8
steps = 8
learning_rate = 0.02

[rejection]
quality = {{ steps = 4, accuracy = 0.05 }}
stability = {{ steps = 1 }}

[anchors.resnet-50]
width = 0.05
depth = 0.01
resolution = 8

[rerank]
top = 1
steps = 4
seeds = [1, 2]
width = 1.0
"#,
        folder.join("out").display()
    );
    let file = folder.join("small.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_search_goes_from_a_file_to_a_report_also_when_it_is_killed() {
    let whole = tempfile::tempdir().unwrap();
    let file = small(whole.path(), 1);
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    assert!(summary.contains("evolution seed 1") && summary.contains("best of 12 different layers"), "{summary}");
    assert!(summary.contains("held out") && messages.contains("rejected: "), "{summary}{messages}");
    let page = std::fs::read_to_string(whole.path().join("out/report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("evonorm_s0"), "{page}");

    let (code, top, _) = run(&["search", "top", &file, "--count", "2", "--json"]);
    assert_eq!(code, 0);
    let best: serde_json::Value = serde_json::from_str(top.lines().next().unwrap()).unwrap();
    assert!(best["formula"].as_str().unwrap().starts_with("layer found_1(x"), "{top}");
    let layers = whole.path().join("layers");
    let layers = layers.to_str().unwrap();
    let (code, _, messages) = run(&["search", "top", &file, "--count", "1", "--emit", "rust", "--out", layers]);
    assert_eq!(code, 0, "{messages}");
    let emitted = std::fs::read_to_string(format!("{layers}/found_1.rs")).unwrap();
    assert!(emitted.contains("pub struct Found1"), "{emitted}");

    // The same, killed again and again: the summaries differ in seconds alone.
    let killed = tempfile::tempdir().unwrap();
    let file = small(killed.path(), 1);
    for pause in [300, 500, 700] {
        let mut child = normact().args(["search", &file]).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (code, again, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    let without_seconds = |text: &str| -> Vec<String> {
        let end = |line: &str| line.rsplit_once(", ").map_or(line, |(line, _)| line).to_owned();
        text.lines().filter(|line| !line.starts_with("report")).map(end).collect()
    };
    assert_eq!(without_seconds(&summary), without_seconds(&again));
}

#[test]
#[cfg(unix)]
fn ranking_again_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let text = std::fs::read_to_string(&file).unwrap().replace("top = 1", "top = 0");
    std::fs::write(&file, &text).unwrap();
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    assert!(!summary.contains("held out"), "{summary}");
    // Two layers and two seeds, each of them long enough to be stopped in between.
    let long = text.replace("top = 0", "top = 1").replace("steps = 4\nseeds", "steps = 60\nseeds");
    std::fs::write(&file, &long).unwrap();
    let mut store = normact_search::Store::open(folder.path().join("out/search.db").to_str().unwrap()).unwrap();
    let mut trainings = || store.measurements("60 steps, width x 1.0, depth x 1.0").unwrap();
    let mut stops = 0;
    while trainings().len() < 4 {
        let known = trainings().len();
        let child = normact().args(["search", "rerank", &file]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        while trainings().len() == known {
            std::thread::sleep(Duration::from_millis(5));
        }
        let signal = if stops == 0 { "-TERM" } else { "-KILL" };
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let ended = child.wait_with_output().unwrap();
        let messages = String::from_utf8_lossy(&ended.stderr);
        assert!(stops > 0 || ended.status.success() && messages.contains("start it again to go on"), "{messages}");
        stops += 1;
    }
    let done = trainings();
    let (code, summary, messages) = run(&["search", "rerank", &file]);
    assert_eq!(code, 0, "{messages}");
    assert_eq!(summary.lines().filter(|line| line.starts_with("held out")).count(), 2, "{summary}");
    assert_eq!(trainings(), done, "nothing was trained twice");
    // One seed more: that alone is trained.
    std::fs::write(&file, long.replace("seeds = [1, 2]", "seeds = [1, 2, 3]")).unwrap();
    let (code, _, messages) = run(&["search", "rerank", &file]);
    assert_eq!(code, 0, "{messages}");
    let after = trainings();
    assert_eq!(after.len(), 6);
    assert!(done.iter().all(|one| after.contains(one)));
}

#[test]
fn several_workers_find_what_there_is_to_find() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 3);
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    let complete = summary.lines().filter(|line| line.contains("best of 12 different layers")).count();
    assert_eq!(complete, 3, "{summary}");
}

#[test]
#[cfg(unix)]
fn a_search_that_is_stopped_loses_nothing_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 2);
    let child = normact().args(["search", &file]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let mut store = normact_search::Store::open(folder.path().join("out/search.db").to_str().unwrap()).unwrap();
    let evaluations = store.evaluations().unwrap();
    assert!(!evaluations.is_empty() && evaluations.iter().all(|one| one.is_done), "what was begun is done");
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    assert!(summary.contains("best of 12 different layers"), "{summary}");
    assert!(store.evaluations().unwrap().iter().all(|one| one.attempts == 1), "nothing was begun twice");
}

#[test]
fn everything_wrong_with_a_file_is_said_at_once() {
    let text = "\
[serch]
budget = 1

[search]
budgt = 100
budget = 0
seeds = [1, 1]
strategies = [\"evolution\", \"luck\"]
baselines = [\"bn_rely\"]
data = \"/nowhere\"

[evolution]
fresh = 1.5
winner = \"both\"

[rejection]
quality = { steps = 5000, acuracy = 0.2 }

[anchors.resnet]
width = 1

[anchors.mobilenet-v2]
width = -1
";
    let messages = Config::parse(text, "bad.toml").unwrap_err().to_string();
    expect![[r#"
        error: bad.toml:1:2: there is no table `serch`
          help: did you mean `search`?
        error: bad.toml:5:1: `[search]` has no key `budgt`
          help: did you mean `budget`?
        error: bad.toml:6:10: `budget`: the budget is 0
        error: bad.toml:7:9: `seeds`: a seed is there twice
        error: bad.toml:8:14: there is no strategy `luck`
          help: there are evolution, random-tested, random
        error: bad.toml:9:13: there is no built-in layer `bn_rely`
          help: did you mean `bn_relu`?
        error: bad.toml:10:8: `data`: the folder of the data is not there
        error: bad.toml:13:9: `fresh`: a chance is from 0 to 1
        error: bad.toml:14:1: `winner` cannot be that: unknown variant `both`, expected `average` or `pareto`
        error: bad.toml:17:11: `quality`: the test has 5000 steps, more than the training with 2000
        error: bad.toml:17:27: `[rejection.quality]` has no key `acuracy`
          help: did you mean `accuracy`?
        error: bad.toml:19:10: `resnet` is no network
          help: there are resnet-50, mobilenet-v2, efficientnet-b0
        error: bad.toml:22:10: mobilenet-v2: a width of -1 is not possible
          help: give a number above 0 and up to 8; 1 is the published network"#]]
    .assert_eq(&messages);
    let (code, output, messages) = run(&["search", "nowhere.toml"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(messages.contains("nowhere.toml"), "{messages}");
    let text = "[search]\nseeds = [18446744073709551615]\nlease_seconds = inf\nbudget = 99999999999999999999\n[task]\nsteps = 50\n";
    expect![[r#"
        error: bad.toml:3:17: `search.lease_seconds` is not a finite number
        error: bad.toml:4:10: `search.budget` is an integer of more than 64 bits
        error: bad.toml:6:9: `quality`: the test has 100 steps, more than the training with 50"#]]
    .assert_eq(&Config::parse(text, "bad.toml").unwrap_err().to_string());
    let syntax = Config::parse("[search\n", "bad.toml").unwrap_err().to_string();
    assert!(syntax.starts_with("error: bad.toml:1:"), "{syntax}");
}

#[test]
fn the_example_and_an_empty_file_are_searches() {
    let (config, _) = Config::read(&root().join("examples/search/digits.toml")).unwrap();
    assert_eq!(config.runs().len(), 7);
    let published = Config::parse("", "empty.toml").unwrap();
    assert_eq!(published.anchors.len(), 3);
    assert_eq!((published.task.steps, published.task.batch, published.evolution.population), (2000, 128, 2500));
}

#[test]
fn another_search_in_one_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let text = std::fs::read_to_string(&file).unwrap();
    let (config, _) = Config::read(Path::new(&file)).unwrap();
    let device = normact::device::open(normact::device::DeviceChoice::Cpu).unwrap();
    normact::search::begin(&config, &text, &device).unwrap();
    normact::search::begin(&config, &text, &device).expect("the same search goes on");
    std::fs::write(&file, text.replace("batch = 8", "batch = 99999")).unwrap();
    let (code, _, messages) = run(&["search", &file]);
    assert_eq!(code, 2);
    assert!(messages.contains("99999"), "what is impossible is told before the database is looked at: {messages}");
    std::fs::write(&file, text.replace("budget = 12", "budget = 13")).unwrap();
    let (code, _, messages) = run(&["search", &file]);
    assert_eq!(code, 2);
    assert!(messages.contains("search.db holds a search with another configuration"), "{messages}");
    assert!(messages.contains("help: give each search a database of its own"), "{messages}");
}

#[test]
fn to_look_at_a_search_that_was_never_begun_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    for command in ["report", "top", "rerank"] {
        let (code, output, messages) = run(&["search", command, &file]);
        assert_eq!((code, output.as_str()), (2, ""), "{messages}");
        assert!(messages.contains("there is no database at") && messages.contains("out/search.db"), "{messages}");
        assert!(messages.contains("help: begin one with `normact search CONFIG`"), "{messages}");
        assert!(!folder.path().join("out").exists(), "{command}");
    }
}
