//! What a search learns about a layer, and `normact probe`.

use std::path::Path;

use normact::anchors::{Anchor, Architecture};
use normact::data::{Dataset, Sample, digits};
use normact::device::{self, DeviceChoice, OpenDevice};
use normact::fitness::{
    Evaluation, MeasureOn, Quality, Reason, Rejected, Rejection, Schedule, Score, Stability, Task, TaskConfig,
    evaluate, test_structure, train_on,
};
use normact::ir::Layer;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{layer, run};

fn cpu() -> OpenDevice {
    device::open(DeviceChoice::Cpu).unwrap()
}

/// The smallest network of each architecture.
fn tiny(architecture: Architecture) -> Anchor {
    Anchor { width: 0.05, depth: 0.01, ..Anchor::small(architecture) }
}

fn short(dataset: &Dataset, steps: usize) -> TaskConfig {
    TaskConfig { steps, ..TaskConfig::for_dataset(dataset) }
}

fn formula(text: &str) -> Layer {
    normact::from_text(text).unwrap_or_else(|error| panic!("{error}"))
}

const UNBOUNDED: &str = "layer unbounded(x) { param gamma = 1  param beta = 0  3 * relu(x) * gamma + beta }";
const BLIND: &str = "layer blind(x) { param beta = 1  beta * 2 }";

fn without_seconds(score: Score) -> Score {
    Score { seconds: 0.0, ..score }
}

#[test]
fn a_training_is_decided_by_its_seed() {
    let (dataset, device) = (digits::load(), cpu());
    let task = Task::new(&dataset, short(&dataset, 12), &device).unwrap();
    let s0 = layer("evonorm_s0", &[]);
    let train = |seed| without_seconds(train_on(&tiny(Architecture::ResNet50), &s0, &task, seed).unwrap());
    let first = train(3);
    assert_eq!(first, train(3));
    assert_ne!(first.loss, train(4).loss);
    assert_eq!((first.steps, first.diverged), (12, None));
}

#[test]
fn an_evaluation_scores_as_training_alone_does() {
    let (dataset, device) = (digits::load(), cpu());
    let config = TaskConfig { schedule: Schedule::Cosine, ..short(&dataset, 40) };
    let task = Task::new(&dataset, config, &device).unwrap();
    let relu = layer("bn_relu", &[]);
    let anchors = [tiny(Architecture::ResNet50), tiny(Architecture::MobileNetV2)];
    let rejection = Rejection {
        quality: Some(Quality { steps: 25, accuracy: 0.2 }),
        stability: Some(Stability { steps: 3, ..Stability::default() }),
        ..Rejection::default()
    };
    let Evaluation::Scores(scores) = evaluate(&relu, &anchors, &task, &rejection, 1, &|| true).unwrap() else {
        panic!("bn_relu was rejected");
    };
    for (anchor, score) in anchors.iter().zip(scores) {
        assert!(score.accuracy > 0.5, "{score:?}");
        // The looks at it in between change nothing.
        let alone = train_on(anchor, &relu, &task, 1).unwrap();
        assert_eq!(without_seconds(score), without_seconds(alone));
    }
}

fn rejected(layer: &Layer, anchor: Anchor, rejection: &Rejection) -> Rejected {
    let (dataset, device) = (digits::load(), cpu());
    let task = Task::new(&dataset, short(&dataset, 100), &device).unwrap();
    match evaluate(layer, &[anchor], &task, rejection, 0, &|| true).unwrap() {
        Evaluation::Rejected(rejected) => rejected,
        Evaluation::Scores(scores) => panic!("{} was not rejected: {scores:?}", layer.name),
    }
}

#[test]
fn a_layer_that_ignores_its_input_is_rejected_before_a_network_is_built() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("blind.nact");
    std::fs::write(&path, BLIND).unwrap();
    let code = [normact::syntax::Code::IgnoresInput];
    let blind = normact::load::load_tolerating(&code, path.to_str().unwrap(), &[]).unwrap().layer;
    // This network cannot be built.
    let impossible = Anchor { width: f64::NAN, ..tiny(Architecture::ResNet50) };
    let found = rejected(&blind, impossible, &Rejection::default());
    assert_eq!((found.reason, found.anchor), (Reason::Structure, None));
    assert_eq!(found.detail, "the output does not depend on the input");
}

#[test]
fn a_degenerate_statistic_rejects_unless_it_is_allowed() {
    let degenerate = formula("layer l(x) { param v = 1  x / std[batch](v) }");
    let test = test_structure(&degenerate, &Rejection::default());
    assert!(!test.passed && test.detail.contains("does not vary along the axes averaged over"), "{test:?}");
    assert!(test_structure(&degenerate, &Rejection { degenerate: false, ..Rejection::default() }).passed);
    for name in normact::built_in::names() {
        let test = test_structure(&layer(name, &[]), &Rejection::default());
        assert!(test.passed, "{name}: {}", test.detail);
    }
}

#[test]
fn a_layer_without_normalization_is_rejected_with_the_reason_and_the_network() {
    let anchor = tiny(Architecture::ResNet50);
    let unbounded = formula(UNBOUNDED);
    let stability = rejected(&unbounded, anchor, &Rejection { quality: None, ..Rejection::default() });
    assert_eq!((stability.reason, stability.anchor), (Reason::Stability, Some(anchor)));
    assert!(stability.detail.contains("the gradient's norm rose from"), "{}", stability.detail);
    assert!(stability.seconds > 0.0);

    let quality = rejected(&unbounded, anchor, &Rejection::default());
    assert_eq!(quality.reason, Reason::Quality, "{}", quality.detail);
}

/// Networks that are small enough for a test; the tests of the probe are its own.
const SMALL_NETWORKS: [&str; 8] = ["--width", "0.05", "--depth", "0.01", "--batch", "16", "--device", "cpu"];

/// A probe with all of its tests: its report and exit code.
fn probed(layer: &str) -> (Value, i32) {
    let (code, report, messages) = run(&[&["probe", layer, "--json"], &SMALL_NETWORKS[..]].concat());
    assert!(code != 2, "{messages}");
    (serde_json::from_str(&report).unwrap(), code)
}

fn passes_the_probe(layer: &str) {
    let (report, code) = probed(layer);
    assert_eq!((code, &report["passed"]), (0, &true.into()), "{report}");
    let tests = report["tests"].as_array().unwrap();
    let names: Vec<&str> = tests.iter().map(|test| test["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["structure", "quality", "stability", "quality", "stability", "quality", "stability"]);
    for (quality, stability) in [(1, 2), (3, 4), (5, 6)] {
        let (score, ascent) = (&tests[quality]["figures"]["score"], &tests[stability]["figures"]["ascent"]);
        assert_eq!((&score["steps"], &ascent["steps"], &ascent["end"]), (&100.into(), &100.into(), &"stable".into()));
        assert!(score["accuracy"].as_f64() >= Some(0.2), "{score}");
        assert!(ascent["largest_norm"].as_f64() >= ascent["first_norm"].as_f64(), "{ascent}");
    }
}

#[test]
fn evonorm_s0_passes_the_probe_in_every_network() {
    passes_the_probe("evonorm_s0");
}

#[test]
fn evonorm_b0_passes_the_probe_in_every_network() {
    passes_the_probe("evonorm_b0");
}

#[test]
fn bn_relu_passes_the_probe_in_every_network() {
    passes_the_probe("bn_relu");
}

#[test]
fn gn_relu_passes_the_probe_in_every_network() {
    passes_the_probe("gn_relu");
}

#[test]
fn a_layer_that_explodes_fails_for_stability_in_every_network() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("unbounded.nact");
    std::fs::write(&path, UNBOUNDED).unwrap();
    let (report, code) = probed(path.to_str().unwrap());
    assert_eq!(code, 1);
    let of = |test: &str| {
        let tests = report["tests"].as_array().unwrap().iter().filter(|one| one["test"] == test);
        tests.map(|one| one["passed"].as_bool().unwrap()).collect::<Vec<bool>>()
    };
    assert_eq!((of("structure"), of("stability")), (vec![true], vec![false; 3]), "{report}");
}

/// A layer is rejected by a probe under a search's file if and only if it is by that search.
#[test]
fn a_probe_under_the_file_of_a_search_has_its_tests() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tests = "[rejection]\nquality = { steps = 4, accuracy = 0.05 }\nstability = { steps = 1 }\n\
                 [task]\nbatch = 8\nsteps = 8\nlearning_rate = 0.02\n\
                 [anchors.little]\narchitecture = \"resnet-50\"\nwidth = 0.05\ndepth = 0.01\nresolution = 8\n";
    let welcome = write("welcome.toml", tests);
    let strict = write("strict.toml", &format!("{tests}[space]\nmere_statistics = false\n"));
    let mere = write("mere.nact", "layer mere(x) { param v = 1  mean[instance](x) * v }");
    let hidden = write("hidden.nact", "layer hidden(x) { param v = 1  (x - x) * v + 1 }");
    let probe = |layer: &str, config: &str| run(&["probe", layer, "--config", config, "--device", "cpu"]);
    let (_, report, messages) = probe(&mere, &welcome);
    assert!(report.contains("structure  -                passed"), "{report}{messages}");
    let (_, report, _) = probe("evonorm_s0", &welcome);
    assert!(report.contains("quality    little ") && report.contains("after 4 steps"), "{report}");
    let (code, report, _) = probe(&mere, &strict);
    assert!(code == 1 && report.contains("the output is a mere statistic, the same at every position"), "{report}");
    for config in [&welcome, &strict] {
        let (code, report, _) = probe(&hidden, config);
        assert!(code == 1 && report.contains("the output does not depend on the input"), "{report}");
        assert_eq!(report.lines().count(), 2, "nothing is trained: {report}");
    }
    let (code, report, _) = run(&["probe", &hidden, "--device", "cpu"]);
    assert!(code == 1 && report.contains("the output does not depend on the input"), "{report}");
    let (code, _, messages) = run(&["probe", &mere, "--config", &welcome, "--batch", "9"]);
    assert!(code == 2 && messages.contains("cannot be used with"), "{messages}");
}

#[test]
fn a_probe_says_why_a_layer_is_rejected() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (code, report, _) = run(&["probe", &write("blind.nact", BLIND), "--device", "cpu"]);
    assert_eq!(code, 1, "{report}");
    let lines: Vec<&str> = report.lines().collect();
    assert!(
        lines[0].starts_with("structure ") && lines[0].ends_with("the output does not depend on the input"),
        "{report}"
    );
    assert!(lines.len() == 2 && lines[1].starts_with("blind is rejected ("), "{report}");

    let unbounded = write("unbounded.nact", UNBOUNDED);
    let (code, report, _) = run(&[
        "probe",
        &unbounded,
        "--device",
        "cpu",
        "--anchor",
        "resnet-50",
        "--width",
        "0.05",
        "--depth",
        "0.01",
        "--quality-steps",
        "0",
    ]);
    assert_eq!(code, 1, "{report}");
    assert!(report.lines().any(|line| line.starts_with("stability  resnet-50        FAILED")), "{report}");
}

#[test]
fn impossible_options_of_a_probe_are_refused() {
    let check = |options: &[&str], expected: &str| {
        let (code, report, messages) = run(&[&["probe", "bn_relu", "--device", "cpu"], options].concat());
        assert_eq!((code, report.as_str()), (2, ""), "{options:?}");
        assert!(messages.contains(expected), "{options:?} gave {messages}");
    };
    check(&["--width", "0"], "a width of 0 is not possible");
    check(&["--depth", "nan"], "a depth of NaN is not possible");
    check(&["--resolution", "0"], "images of 0 by 0 are not possible");
    check(&["--accuracy", "20"], "an accuracy of 20 is not possible");
    check(&["--limit", "inf"], "a limit of inf is not possible");
    check(&["--step-size", "0"], "a step size of 0 is not possible");
    check(&["--batch", "0"], "a batch of 0 images trains nothing");
    check(&["--batch", "1155"], "a batch of 1155 cannot be taken from 1154 images");
    check(&["--lr", "nan"], "a learning rate of NaN does not train");
    check(&["--anchor", "vgg"], "resnet-50");
    check(&["--data", "no/such/folder"], "no/such/folder is not a folder");
    let (code, _, messages) = run(&["probe", "no_such_layer"]);
    assert!(code == 2 && messages.contains("no built-in layer `no_such_layer`"), "{messages}");
}

#[test]
fn a_task_has_the_published_defaults_and_refuses_impossible_options() {
    let default = TaskConfig::default();
    assert_eq!((default.crop, default.batch, default.steps), (24, 128, 2000));
    assert_eq!((default.learning_rate, default.momentum, default.weight_decay), (0.1, 0.9, 1e-4));
    assert_eq!((TaskConfig::batch_free().steps, TaskConfig::batch_free().schedule), (5000, Schedule::Cosine));

    let (dataset, device) = (digits::load(), cpu());
    let check = |config: TaskConfig, expected: &str| {
        assert_eq!(Task::new(&dataset, config, &device).unwrap_err().message, expected);
    };
    check(TaskConfig { steps: 0, ..default.clone() }, "training for 0 steps is nothing to do");
    check(TaskConfig { crop: 0, ..default.clone() }, "a crop of 0 pixels shows nothing");
    check(TaskConfig { momentum: 1.0, ..default.clone() }, "a momentum of 1 is not possible");
    check(TaskConfig { weight_decay: -1.0, ..default.clone() }, "a weight decay of -1 is not possible");
    check(TaskConfig { batch: 1155, ..default.clone() }, "a batch of 1155 cannot be taken from 1154 images");
    let held_out = TaskConfig { batch: 1443, measure_on: MeasureOn::HeldOut, ..default };
    check(held_out, "a batch of 1443 cannot be taken from 1442 images");
}

#[test]
fn a_test_longer_than_the_training_is_refused() {
    let (dataset, device) = (digits::load(), cpu());
    let task = Task::new(&dataset, short(&dataset, 50), &device).unwrap();
    let anchors = [tiny(Architecture::ResNet50)];
    let error = evaluate(&layer("bn_relu", &[]), &anchors, &task, &Rejection::default(), 0, &|| true).unwrap_err();
    assert_eq!(error.message, "a quality test of 100 steps does not fit into a training of 50");
}

#[test]
fn a_crop_is_scaled_by_the_mean_of_what_a_pixel_covers() {
    let (dataset, device) = (digits::load(), cpu().device);
    let sample = Sample { index: 4, down: -1, right: -2, mirrored: true };
    let whole: Vec<f32> = dataset.batch(&dataset.train, &[sample], &device).0.try_into_vec_as().unwrap();
    let cropped = |window, side| -> Vec<f32> {
        let (images, labels) = dataset.cropped_batch(&dataset.train, &[sample], window, side, &device);
        assert_eq!((images.dims(), labels.dims()), ([1, 1, side, side], [1]));
        images.try_into_vec_as().unwrap()
    };
    let close = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-5, "{found} and {expected}");
    for (found, expected) in cropped(8, 8).into_iter().zip(&whole) {
        close(found, *expected);
    }
    let at = |row: usize, column: usize| whole[row * 8 + column];
    let (halved, doubled, uneven) = (cropped(6, 3), cropped(6, 12), cropped(3, 2));
    for row in 0..3 {
        for column in 0..3 {
            let (top, left) = (2 * row, 2 * column);
            let mean = (at(top, left) + at(top, left + 1) + at(top + 1, left) + at(top + 1, left + 1)) / 4.0;
            close(halved[row * 3 + column], mean);
            close(doubled[4 * row * 12 + 4 * column], at(top, left));
            close(doubled[(4 * row + 1) * 12 + 4 * column + 3], at(top, left + 1));
        }
    }
    // Three pixels become two: one and a half each.
    let pair = |row: usize| (at(row, 0) * 2.0 + at(row, 1)) / 3.0;
    close(uneven[0], (pair(0) * 2.0 + pair(1)) / 3.0);
}

#[test]
fn cifar10_is_cropped_and_trained_on() {
    let folder = super::train::cifar10_folder(40);
    let dataset = normact::data::cifar10::load(Path::new(folder.path())).unwrap();
    let device = cpu();
    let config = TaskConfig { batch: 16, steps: 2, ..TaskConfig::default() };
    let task = Task::new(&dataset, config, &device).unwrap();
    let anchor = Anchor { resolution: 24, ..tiny(Architecture::EfficientNetB0) };
    let score = train_on(&anchor, &layer("gn_silu", &[]), &task, 0).unwrap();
    assert!(score.loss.is_some_and(f64::is_finite), "{score:?}");
}
