//! `normact search`: from a file to a report, gone on with after a kill, and what is said about bad files.

use std::path::Path;
use std::time::{Duration, Instant};

use expect_test::expect;
use normact::anchors::{Anchor, Architecture};
use normact::fitness::Schedule;
use normact::search::Config;
use normact_search::Store;
use serde_json::Value;

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

/// Waits until something has happened in another process.
fn wait_until(mut has_happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !has_happened() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn store(folder: &Path) -> Option<Store> {
    let file = folder.join("out/search.db");
    file.exists().then(|| Store::open(file.to_str().unwrap()).ok()).flatten()
}

/// A search that ranks nothing again, and its file with a longer ranking again of two layers with two seeds.
fn searched(folder: &Path, workers: usize) -> String {
    let file = small(folder, workers);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("top = 1", "top = 0")).unwrap();
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    assert!(!summary.contains("held out"), "{summary}");
    std::fs::write(&file, text.replace("steps = 4\nseeds", "steps = 60\nseeds")).unwrap();
    file
}

#[test]
#[cfg(unix)]
fn ranking_again_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let file = searched(folder.path(), 1);
    let mut store = store(folder.path()).unwrap();
    let mut trainings = || store.measurements("60 steps").unwrap();
    let mut stops = 0;
    while trainings().len() < 4 {
        let known = trainings().len();
        let child = normact().args(["search", "rerank", &file]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_until(|| trainings().len() > known);
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
    // One seed more: that alone is trained. Another network: everything, beside what there is.
    let text = std::fs::read_to_string(&file).unwrap().replace("seeds = [1, 2]", "seeds = [1, 2, 3]");
    std::fs::write(&file, &text).unwrap();
    let (code, _, messages) = run(&["search", "rerank", &file]);
    assert_eq!(code, 0, "{messages}");
    let after = trainings();
    assert_eq!(after.len(), 6);
    assert!(done.iter().all(|one| after.contains(one)));
    let wider = text.replace("width = 1.0\n", "width = 2.0\n");
    std::fs::write(&file, wider).unwrap();
    assert_eq!(run(&["search", "rerank", &file]).0, 0);
    assert_eq!(trainings().len(), 12);
}

#[test]
#[cfg(unix)]
fn several_workers_share_ranking_again_and_one_that_dies_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = searched(folder.path(), 2);
    let mut store = store(folder.path()).unwrap();
    let mut trainings = || store.measurements("60 steps").unwrap().len();
    let piped = std::process::Stdio::piped;
    let child = normact().args(["search", "rerank", &file]).stdout(piped()).stderr(piped()).spawn().unwrap();
    // The children of a process are in this file of Linux; elsewhere no worker is killed.
    let tasks = format!("/proc/{0}/task/{0}/children", child.id());
    let workers = || std::fs::read_to_string(&tasks).unwrap_or_default();
    if cfg!(target_os = "linux") {
        wait_until(|| trainings() > 0);
        let victim = workers().split_whitespace().next().unwrap().to_owned();
        std::process::Command::new("kill").args(["-KILL", &victim]).status().unwrap();
    }
    let ended = child.wait_with_output().unwrap();
    let (summary, messages) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{messages}");
    if cfg!(target_os = "linux") {
        assert!(
            messages.contains("a worker has died (signal: 9 (SIGKILL)); another one takes its place"),
            "{messages}"
        );
    }
    assert_eq!(summary.lines().filter(|line| line.starts_with("held out")).count(), 2, "{summary}");
    assert_eq!(trainings(), 4);
}

#[test]
fn the_best_are_ranked_again_in_networks_of_their_own_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let text = std::fs::read_to_string(&file).unwrap();
    let networks = "[rerank.anchors.large]\narchitecture = \"mobilenet-v2\"\nstem = \"imagenet\"\nwidth = 0.05\n\
                    depth = 0.01\nresolution = 32\n[rerank.anchors.resnet-50]\nwidth = 0.1\ndepth = 0.01\n\
                    resolution = 8\n";
    let own = text.replace("top = 1", "top = 3\nkeep = 2").replace("width = 1.0\n", networks);
    std::fs::write(&file, own).unwrap();
    let (code, summary, messages) = run(&["search", &file, "--json"]);
    assert_eq!(code, 0, "{messages}");
    let lines: Vec<Value> = summary.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    assert_eq!((of("baseline").len(), of("run").len(), of("report").len()), (1, 3, 1), "{summary}");
    let run_of = of("run");
    assert_eq!((&run_of[0]["strategy"], &run_of[0]["judged"]), (&"evolution".into(), &12.into()));
    let reranked = of("reranked");
    assert_eq!(reranked.len(), 4);
    let kept: Vec<&Value> = reranked.iter().copied().filter(|one| !one["kept"].is_null()).collect();
    assert_eq!(kept.iter().map(|one| one["kept"].clone()).collect::<Vec<_>>(), [1, 2]);
    assert!(kept[0]["mean"].as_f64() >= kept[1]["mean"].as_f64());
    assert!(kept.iter().all(|one| one["layer"] != "evonorm_s0"), "a baseline is not what was found");
    for one in &reranked {
        let seeds = one["seeds"].as_array().unwrap();
        assert_eq!(seeds.len(), 2);
        assert!(seeds.iter().all(|scores| scores["large"].is_f64() && scores["resnet-50"].is_f64()), "{one}");
        let means: Vec<f64> = seeds
            .iter()
            .map(|scores| (scores["large"].as_f64().unwrap() + scores["resnet-50"].as_f64().unwrap()) / 2.0)
            .collect();
        let mean = (means[0] + means[1]) / 2.0;
        assert!((one["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
        // The standard deviation of two numbers.
        let deviation = (means[0] - means[1]).abs() / 2_f64.sqrt();
        assert!((one["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
    }
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("The final choice") && page.contains(">large</th>"), "{page}");

    let (code, top, messages) = run(&["search", "top", &file, "--reranked", "--json"]);
    assert_eq!(code, 0, "{messages}");
    let top: Vec<Value> = top.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(top.len(), 2);
    assert_eq!(top[0]["held_out"]["mean"], kept[0]["mean"]);
    let formula =
        kept[0]["layer"].as_str().unwrap().rsplit_once("; ").map_or(kept[0]["layer"].as_str(), |(_, x)| Some(x));
    assert!(top[0]["formula"].as_str().unwrap().contains(formula.unwrap()), "{} {}", top[0], kept[0]);
}

/// What `top` prints, the report shows and `--emit` writes is one form of one layer.
#[test]
fn the_best_is_the_same_wherever_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("nodes = 2", "nodes = 5").replace("top = 1", "top = 0")).unwrap();
    let (code, summary, messages) = run(&["search", &file, "--json"]);
    assert_eq!(code, 0, "{messages}");
    let (_, top, _) = run(&["search", "top", &file, "--count", "30", "--json"]);
    let top: Vec<Value> = top.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    let unescaped = page.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
    for one in &top[..top.len().min(10)] {
        let formula = one["formula"].as_str().unwrap();
        assert!(unescaped.contains(formula.trim_end()), "{formula}");
        let body = formula.lines().rev().nth(1).unwrap();
        for parameter in ["v0", "v1"] {
            let is_declared = formula.contains(&format!("param {parameter} "));
            let uses = formula.matches(parameter).count();
            assert!(!is_declared || uses > 1, "{parameter} is used where it is declared: {formula}");
        }
        assert!(body.contains("gamma"), "{formula}");
    }
    // The best of all runs is the best of one of them.
    let best: Vec<Value> = summary.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(best.iter().any(|line| line["best"]["key"] == top[0]["key"]), "{summary}");
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
    wait_until(|| store(folder.path()).is_some_and(|mut store| store.evaluations().is_ok_and(|all| !all.is_empty())));
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let mut store = store(folder.path()).unwrap();
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
baselines = [\"bn_rely\", \"affine\", \"affine\"]
data = \"/nowhere\"

[evolution]
fresh = 1.5
winner = \"both\"
mutations = 1000000000000

[rejection]
quality = { steps = 5000, acuracy = 0.2, accuracy = 20 }
stability = { step_size = \"small\", limit = 0 }

[task]
batch = 0
learning_rate = -1
momentum = 2
set_aside = 1.0

[anchors.resnet]
width = 1

[anchors.mobilenet-v2]
width = -1
depth = 9
squeeze_excite = \"layer\"

[anchors.large]
architecture = \"efficientnet-b0\"
stem = \"imagenet\"
resolution = 24

[rerank]
keep = 11
seeds = [1, 1]
depth = 0
";
    let messages = Config::parse(text, "bad.toml").unwrap_err().to_string();
    expect![[r#"
        error: bad.toml:1:2: there is no table `serch`
          help: did you mean `search`?
        error: bad.toml:5:1: `[search]` has no key `budgt`
          help: did you mean `budget`?
        error: bad.toml:6:10: `budget`: the budget is 0
          help: give 1 or more
        error: bad.toml:7:9: `1` is there twice
        error: bad.toml:8:14: there is no strategy `luck`
          help: there are evolution, random-tested, random
        error: bad.toml:9:13: there is no built-in layer `bn_rely`, and no file of that name
          help: did you mean `bn_relu`?
        error: bad.toml:9:13: `affine` is there twice
        error: bad.toml:10:8: `data`: the folder of the data is not there
          help: give `digits`, or the folder with CIFAR-10's binary files
        error: bad.toml:13:9: `fresh`: that is no chance
          help: give a number from 0 to 1
        error: bad.toml:14:10: `winner` cannot be that: unknown variant `both`, expected `average` or `pareto`
        error: bad.toml:15:13: `mutations`: so many mutations leave nothing of a parent
          help: give up to 1000
        error: bad.toml:18:21: the quality test has 5000 steps, more than the training with 2000
          help: train for longer, test earlier, or leave the test out
        error: bad.toml:18:27: `[rejection.quality]` has no key `acuracy`
          help: did you mean `accuracy`?
        error: bad.toml:18:53: an accuracy of 20 is not possible
          help: give a share from 0 to 1, such as 0.2
        error: bad.toml:19:27: `step_size` cannot be that: invalid type: string "small", expected f64
        error: bad.toml:19:44: a limit of 0 is not possible
          help: give a positive number, such as 1e8
        error: bad.toml:22:9: a batch of 0 images trains nothing
          help: give `batch` 1 or more
        error: bad.toml:23:17: a learning rate of -1 does not train
          help: give `learning_rate` a positive number, such as 0.1
        error: bad.toml:24:12: a momentum of 2 is not possible
          help: give `momentum` a number from 0 to below 1, such as 0.9
        error: bad.toml:25:13: a share of 1 cannot be set aside
          help: give `set_aside` a number above 0 and below 1, such as 0.2
        error: bad.toml:27:10: `resnet` is no network
          help: there are resnet-50, mobilenet-v2, efficientnet-b0
        error: bad.toml:31:9: mobilenet-v2: a width of -1 is not possible
          help: give a number above 0 and up to 8; 1 is the published network
        error: bad.toml:32:9: mobilenet-v2: a depth of 9 is not possible
          help: give a number above 0 and up to 8; 1 is the published network
        error: bad.toml:33:18: mobilenet-v2 has no squeeze-excite
          help: leave it out; efficientnet-b0 has one
        error: bad.toml:38:14: efficientnet-b0: 24 by 24 pixels, reduced by 32, are less than one
          help: give 32 or more, or make the network for small images (`stem = "cifar"`)
        error: bad.toml:41:8: `keep`: more are kept than are ranked again
          help: give a number up to `top`
        error: bad.toml:42:9: `1` is there twice
        error: bad.toml:43:9: networks 0 times as large are not possible
          help: give a number above 0; 1 leaves the networks of the search as they are"#]]
    .assert_eq(&messages);
    let (code, output, messages) = run(&["search", "nowhere.toml"]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(messages.contains("nowhere.toml"), "{messages}");
    let check = |text: &str, expected: expect_test::Expect| {
        expected.assert_eq(&Config::parse(text, "bad.toml").unwrap_err().to_string());
    };
    let large = "lease_seconds = inf\nbudget = 99999999999999999999\ndata = \"\"\n[task]\nsteps = 50\n";
    check(
        &format!("[search]\nseeds = [18446744073709551615]\n{large}"),
        expect![[r#"
        error: bad.toml:3:17: `search.lease_seconds` is not a finite number
        error: bad.toml:4:10: `search.budget` is an integer of more than 64 bits
        error: bad.toml:5:8: `data`: the folder of the data is not there
          help: give `digits`, or the folder with CIFAR-10's binary files
        error: bad.toml:7:9: the quality test has 100 steps, more than the training with 50
          help: train for longer, test earlier, or leave the test out"#]],
    );
    check(
        "[rejection]\nquality = { steps = 0, accuracy = inf }\n[rerank]\nwidth = 0\nsteps = 0",
        expect![[r#"
        error: bad.toml:2:21: a number of training steps of 0 is not possible
          help: give 1 or more, or leave the quality test out
        error: bad.toml:2:35: `rejection.quality.accuracy` is not a finite number
        error: bad.toml:4:9: networks 0 times as large are not possible
          help: give a number above 0; 1 leaves the networks of the search as they are
        error: bad.toml:5:9: `steps`: ranking again needs steps
          help: give 1 or more, or `top = 0`"#]],
    );
    check(
        "[task]\nsteps = 20\nsteps = 30\n[space\n[rerank]\ntop = -1",
        expect![[r#"
        error: bad.toml:2:9: the quality test has 100 steps, more than the training with 20
          help: train for longer, test earlier, or leave the test out
        error: bad.toml:3:1: duplicate key
        error: bad.toml:4:7: unclosed table, expected `]`
        error: bad.toml:6:7: `top` cannot be that: invalid value: integer `-1`, expected usize"#]],
    );
    check(
        "search = 3\n[rerank]\nwidth = 2\nanchors = 3\n[rerank.anchors.resnet-50]\n",
        expect![[r#"
        error: bad.toml:1:1: `search` is a table
          help: write `[search]` above its keys
        error: bad.toml:4:1: `[rerank]` has no key `anchors`
          help: it may have depth, keep, seeds, steps, top, width
        error: bad.toml:5:9: cannot extend value of type integer with a dotted key"#]],
    );
    check(
        "[rerank]\nwidth = 2\n[rerank.anchors.resnet-50]\nstem = \"imagenet\"\nwidth = 9\n",
        expect![[r#"
        error: bad.toml:2:9: the tables `[rerank.anchors.NAME]` say how large the networks are
          help: leave out the one or the others
        error: bad.toml:5:9: resnet-50: a width of 9 is not possible
          help: give a number above 0 and up to 8; 1 is the published network"#]],
    );
    check(
        "[rerank]\nwidth = 100\n",
        expect![[r#"
        error: bad.toml:2:9: ranking again, resnet-50: a width of 25 is not possible
          help: give a number above 0 and up to 8; 1 is the published network"#]],
    );
}

#[test]
fn networks_for_large_images_and_searches_without_batch_statistics_have_defaults_of_their_own() {
    let text = "[space]\nbatch_free = true\n[task]\nbatch = 7\n[anchors.resnet-50]\nstem = \"imagenet\"\nwidth = 0.5\n";
    let config = Config::parse(text, "large.toml").unwrap();
    assert_eq!((config.task.batch, config.task.steps, config.task.schedule), (7, 5000, Schedule::Cosine));
    let expected = Anchor { width: 0.5, ..Anchor::image_net(Architecture::ResNet50) };
    assert_eq!(config.anchors, [("resnet-50".to_owned(), expected)]);
    let steps = Config::parse("[task]\nsteps = 900\n[space]\nbatch_free = true\n", "short.toml").unwrap().task.steps;
    assert_eq!(steps, 900, "what the file says counts more");
    let own = "[rerank.anchors.mobilenet-v2]\nstem = \"imagenet\"\n";
    let again = Config::parse(own, "own.toml").unwrap().rerank_anchors();
    assert_eq!(again, [("mobilenet-v2".to_owned(), Anchor::image_net(Architecture::MobileNetV2))]);
    let larger = Config::parse("[rerank]\nwidth = 4.0\n", "wide.toml").unwrap().rerank_anchors();
    assert_eq!(larger[0].1, Anchor { width: 1.0, ..Anchor::search(Architecture::ResNet50) });
}

#[test]
fn a_baseline_may_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let layer = folder.path().join("own.nact");
    std::fs::write(&layer, "layer own(x) { x / std[group](x) }").unwrap();
    let spec = layer.to_str().unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replace("\"evonorm_s0\"", &format!("\"bn_relu\", \"{spec}\""));
    let text = text.replace("\"evolution\", \"random-tested\", \"random\"", "").replace("top = 1", "top = 0");
    std::fs::write(&file, text).unwrap();
    let (code, summary, messages) = run(&["search", &file]);
    assert_eq!(code, 0, "{messages}");
    let names: Vec<&str> = summary.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["bn_relu", "own", "report"]);
    // Another layer in the file is another search; another spelling is not.
    std::fs::write(&layer, "layer own(x) { 1 * x / std[group](x) }").unwrap();
    assert_eq!(run(&["search", &file]).0, 0);
    std::fs::write(&layer, "layer own(x) { x / std[batch](x) }").unwrap();
    let (code, _, messages) = run(&["search", "report", &file]);
    assert_eq!(code, 2);
    assert!(messages.contains("search.baselines is"), "{messages}");
    std::fs::write(&layer, "layer own(x) { y }").unwrap();
    let (code, _, messages) = run(&["search", &file]);
    assert!(code == 2 && messages.contains("own.nact:1:") && messages.contains("small.toml:6:"), "{messages}");
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
fn a_layer_that_cannot_be_judged_stops_the_search_with_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let file = small(folder.path(), 1);
    let layer = folder.path().join("seven.nact");
    std::fs::write(&layer, "layer seven(x) { x / std[group(7)](x) }").unwrap();
    let baselines = format!("\"{}\"", layer.display());
    let text = std::fs::read_to_string(&file).unwrap().replace("\"evonorm_s0\"", &baselines);
    std::fs::write(&file, text).unwrap();
    let (code, output, messages) = run(&["search", &file]);
    assert_eq!((code, output.as_str()), (2, ""));
    assert_eq!(messages.matches("error:").count(), 1, "{messages}");
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
    for (change, told) in [
        (["budget = 12", "budget = 13"], "search.budget is 12 there and 13 here"),
        (["learning_rate = 0.02", "learning_rate = 0.03"], "task.learning_rate is 0.02 there and 0.03 here"),
        (["\"random-tested\", \"random\"", "\"random\", \"random-tested\""], "search.strategies is [\"evolution\","),
    ] {
        std::fs::write(&file, text.replace(change[0], change[1])).unwrap();
        let commands: [&[&str]; 4] = [&["search"], &["search", "report"], &["search", "rerank"], &["search", "top"]];
        for command in commands {
            let (code, output, messages) = run(&[command, &[&file]].concat());
            assert_eq!((code, output.as_str()), (2, ""), "{command:?}");
            let expected = format!("the database holds a search with another configuration: {told}");
            assert!(messages.contains(&expected), "{command:?}: {messages}");
            assert!(messages.contains("help: give each search a database of its own"), "{messages}");
        }
        let page = folder.path().join("out/report.html");
        assert!(!page.exists(), "nothing was written");
    }
    // Where the search is kept and who works on it is not what it is.
    std::fs::write(&file, text.replace("workers = 1", "workers = 2").replace("top = 1", "top = 2")).unwrap();
    let (code, summary, messages) = run(&["search", "report", &file]);
    assert_eq!(code, 0, "{messages}");
    assert!(summary.contains("evolution seed 1              -  best of 0 different layers"), "{summary}");
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
