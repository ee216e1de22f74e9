//! `normact train`: exact continuation, files, messages, and the accuracy it reaches.

mod data;
pub(crate) use data::cifar10_folder;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use normact::Failure;
use normact::data::{Dataset, Split, cifar10, digits};
use normact::device::{self, DeviceChoice, OpenDevice};
use normact::train::{
    self, CHECKPOINT_FILE, CURVE_FILE, Checkpoint, Conditions, Ending, Event, Job, METRICS_FILE, Observer, Run,
    StepReport, TrainConfig, WEIGHTS_FILE,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{layer, normact};

// Helpers.

/// Every fifth of the digits, for runs of a few steps.
fn few_digits() -> Dataset {
    let part = |split: &Split| Split {
        labels: split.labels.iter().step_by(5).copied().collect(),
        pixels: split.pixels.chunks_exact(64).step_by(5).flatten().copied().collect(),
    };
    let mut dataset = digits::load();
    (dataset.train, dataset.held_out) = (part(&dataset.train), part(&dataset.held_out));
    dataset
}

fn short_config(dataset: &Dataset) -> TrainConfig {
    TrainConfig { epochs: 2, batch: 16, ..TrainConfig::for_dataset(dataset) }
}

fn cpu() -> OpenDevice {
    device::open(DeviceChoice::Cpu).unwrap()
}

fn wgpu() -> OpenDevice {
    device::open(DeviceChoice::Wgpu)
        .expect("these tests need a WGPU adapter; Debian's mesa-vulkan-drivers brings one that runs on the CPU")
}

/// Stops the run once so many steps of an epoch are done.
#[derive(Default)]
struct Stopper {
    stop: AtomicBool,
    stop_at: Option<(usize, usize)>,
}

impl Stopper {
    fn stopping_at(epoch: usize, step: usize) -> Self {
        Self { stop_at: Some((epoch, step)), ..Self::default() }
    }
}

impl Observer for &Stopper {
    fn event(&mut self, _: &Event) -> Result<(), Failure> {
        Ok(())
    }

    fn steps(&mut self, report: &StepReport) {
        if self.stop_at == Some((report.epoch, report.step)) {
            self.stop.store(true, Ordering::SeqCst);
        }
    }
}

fn run(job: &Job<'_>, resume: bool, stopper: &Stopper) -> Result<Run, Failure> {
    let saved = if resume { Some(Checkpoint::read(job.out)?) } else { None };
    let mut observer = stopper;
    train::train(job, saved, &mut observer, &stopper.stop)
}

fn failure(result: Result<Run, Failure>, folder: &Path) -> String {
    result.unwrap_err().to_string().replace(&folder.display().to_string(), "DIR")
}

/// The tensors of a safetensors file as bytes.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let header: Value = serde_json::from_slice(header).unwrap();
    let header = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    header
        .map(|(name, tensor)| {
            let offset = |end: usize| tensor["data_offsets"][end].as_u64().unwrap() as usize;
            (name.clone(), data[offset(0)..offset(1)].to_vec())
        })
        .collect()
}

/// The lines of a metrics file without what the clock says.
fn metrics(folder: &Path) -> Vec<Value> {
    lines(&fs::read_to_string(folder.join(METRICS_FILE)).unwrap())
        .into_iter()
        .map(|mut line| {
            let object = line.as_object_mut().unwrap();
            object.remove("seconds");
            object.remove("images_per_second");
            line
        })
        .collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_same_end(one: &Path, other: &Path) {
    assert_eq!(metrics(one), metrics(other));
    for file in [CHECKPOINT_FILE, WEIGHTS_FILE] {
        let (one, other) = (tensors(&one.join(file)), tensors(&other.join(file)));
        assert!(!one.is_empty());
        let differing: Vec<_> = one.keys().filter(|name| one.get(*name) != other.get(*name)).collect();
        assert_eq!((one.len(), differing), (other.len(), vec![]), "in {file}");
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

// Continuing.

/// Stops a run of `layer` where `stop_at` says, resumes it, and compares with one that went through.
fn check_resumes_exactly(name: &str, device: &OpenDevice, stop_at: &[(usize, usize)]) {
    let dataset = few_digits();
    let layer = layer(name, &[]);
    let (whole, pieces) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let job = |out| Job { layer: &layer, dataset: &dataset, config: short_config(&dataset), device, out };

    let uninterrupted = run(&job(whole.path()), false, &Stopper::default()).unwrap();
    for (index, (epoch, step)) in stop_at.iter().enumerate() {
        let run = run(&job(pieces.path()), index > 0, &Stopper::stopping_at(*epoch, *step)).unwrap();
        assert_eq!(run.ending, Ending::Interrupted, "at step {step} of epoch {epoch}");
    }
    let resumed = run(&job(pieces.path()), true, &Stopper::default()).unwrap();
    assert_eq!(uninterrupted.parameters, resumed.parameters);
    assert_same_end(whole.path(), pieces.path());
}

#[test]
fn a_run_resumed_within_an_epoch_ends_with_the_same_bits() {
    check_resumes_exactly("evonorm_s0", &cpu(), &[(1, 10), (2, 10)]);
}

#[test]
fn a_run_resumed_between_epochs_ends_with_the_same_bits() {
    check_resumes_exactly("gn_silu", &cpu(), &[(1, 18)]);
}

#[test]
fn a_run_resumed_on_wgpu_ends_with_the_same_bits() {
    check_resumes_exactly("evonorm_b0", &wgpu(), &[(1, 10), (2, 10)]);
}

#[test]
fn running_statistics_are_part_of_a_checkpoint() {
    check_resumes_exactly("bn_relu", &cpu(), &[(1, 10), (1, 18)]);
}

/// Starts `normact train` on the CPU, waits for its first complete epoch and a little longer, and
/// sends it a signal in the middle of the next.
#[cfg(unix)]
fn train_and_signal(out: &Path, signal: &str) -> Option<i32> {
    let mut command = normact();
    let mut child = command
        .args([
            "train",
            "evonorm_s0",
            "--device",
            "cpu",
            "--epochs",
            "2",
            "--batch",
            "4",
            "--lr",
            "0.02",
            "--json",
            "--out",
        ])
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(events.by_ref().map(|line| line.unwrap()).any(|line| line.starts_with("{\"event\":\"epoch\"")));
    std::thread::sleep(Duration::from_millis(50));
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let code = child.wait().unwrap().code();
    if signal == "-INT" {
        let rest: Vec<String> = events.map(|line| line.unwrap()).collect();
        let last: Value = serde_json::from_str(rest.last().unwrap()).unwrap();
        assert_eq!((&last["event"], &last["epochs"]), (&"interrupted".into(), &1.into()));
        assert!(last["steps"].as_u64().unwrap() > 0, "{last}");
    }
    code
}

#[cfg(unix)]
#[test]
fn interrupts_and_kills_lose_nothing() {
    let whole = TempDir::new().unwrap();
    let run = |out: &Path, more: &[&str]| {
        let output = normact().args(["train", "evonorm_s0", "--out"]).arg(out).args(more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run(whole.path(), &["--device", "cpu", "--epochs", "2", "--batch", "4", "--lr", "0.02"]);

    for (signal, code) in [("-INT", Some(1)), ("-KILL", None)] {
        let out = TempDir::new().unwrap();
        assert_eq!(train_and_signal(out.path(), signal), code, "after {signal}");
        run(out.path(), &["--resume"]);
        assert_same_end(whole.path(), out.path());
    }
}

// Refusals.

#[test]
fn checkpoints_of_other_runs_and_damaged_ones_are_refused() {
    let dataset = few_digits();
    let s0 = layer("evonorm_s0", &[]);
    let folder = TempDir::new().unwrap();
    let device = cpu();
    let job =
        Job { layer: &s0, dataset: &dataset, config: short_config(&dataset), device: &device, out: folder.path() };
    let resume = |job: &Job<'_>| failure(run(job, true, &Stopper::default()), folder.path());
    let file = folder.path().join(CHECKPOINT_FILE);

    assert_eq!(
        resume(&job),
        "error: there is no checkpoint at DIR/checkpoint.safetensors\n  help: point `--out` at the folder of an earlier run, \
         or start a new run without `--resume`"
    );

    run(&job, false, &Stopper::stopping_at(1, 10)).unwrap();
    assert_eq!(
        failure(run(&job, false, &Stopper::default()), folder.path()),
        "error: DIR holds an unfinished run (0 of 2 epochs)\n  help: continue it with `--resume`, choose another folder with \
         `--out`, or delete this one"
    );

    let relu = layer("bn_relu", &[]);
    assert_eq!(
        resume(&Job { layer: &relu, ..job.clone() }),
        "error: DIR/checkpoint.safetensors was made by the layer evonorm_s0, not bn_relu\n  help: name that layer, or start a \
         new run in another folder with `--out`"
    );
    let of_8_groups = layer("evonorm_s0", &["groups=8"]);
    assert_eq!(
        resume(&Job { layer: &of_8_groups, ..job.clone() }),
        "error: DIR/checkpoint.safetensors was made by a layer that is also named evonorm_s0, but has another formula or \
         settings\n  help: resume with the formula and `--set` options the run was started with, or start a new run"
    );
    assert_eq!(
        resume(&Job { config: TrainConfig { epochs: 3, seed: 9, ..job.config.clone() }, ..job.clone() }),
        "error: DIR/checkpoint.safetensors was made with other options: --epochs 2 (now 3), --seed 0 (now 9)\n  help: leave \
         these options away to continue with the run's own, or start a new run"
    );
    assert_eq!(
        resume(&Job { dataset: &digits::load(), ..job.clone() }),
        "error: DIR/checkpoint.safetensors was made with other images (digits, now digits)\n  help: give the same `--data` as \
         the run was started with, or start a new run"
    );

    let whole = fs::read(&file).unwrap();
    let check_bytes = |bytes: &[u8], expected: &str| {
        fs::write(&file, bytes).unwrap();
        let message = resume(&job);
        assert!(message.starts_with(&format!("error: DIR/checkpoint.safetensors {expected}")), "{message}");
    };
    check_bytes(&whole[..whole.len() - 1], "is cut short");
    check_bytes(&whole[..100], "is cut short");
    check_bytes(b"", "is cut short");
    check_bytes(b"not a checkpoint at all", "is cut short or is not a safetensors file");
    check_bytes(b"\x02\0\0\0\0\0\0\0{}", "is a safetensors file, but not a checkpoint of `normact train`");
    let newer = String::from_utf8_lossy(&whole[..2000]).find("\\\"version\\\":1").unwrap();
    let mut bytes = whole.clone();
    bytes[newer + "\\\"version\\\":".len()] = b'7';
    check_bytes(&bytes, "has the format version 7; this program reads version 1");

    fs::write(&file, &whole).unwrap();
    run(&job, true, &Stopper::default()).unwrap();
}

#[test]
fn impossible_options_are_refused() {
    let check = |options: &[&str], expected: &str| {
        let out = TempDir::new().unwrap();
        let output =
            normact().args(["train", "--device", "cpu", "--out"]).arg(out.path()).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(stderr(&output).contains(expected), "{options:?} gave {}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert!(fs::read_dir(out.path()).unwrap().next().is_none(), "{options:?} left files");
    };
    check(&["--epochs", "0"], "training for 0 epochs is nothing to do");
    check(&["--batch", "0"], "a batch of 0 cannot be taken from 1442 images");
    check(&["--batch", "9999"], "a batch of 9999 cannot be taken from 1442 images");
    check(&["--lr", "NaN"], "a learning rate of NaN does not train");
    check(&["--lr=-1"], "a learning rate of -1 does not train");
    check(&["--weight-decay", "inf"], "a weight decay of inf is not possible");
    check(&["--data", "no/such/folder"], "no/such/folder is not a folder");
    check(&["--resume"], "there is no checkpoint at");
    check(&["--model", "vgg"], "resnet-tiny");
}

// What a run gives.

#[test]
fn evonorm_s0_reads_97_of_100_held_out_digits() {
    let out = TempDir::new().unwrap();
    let output = normact().args(["train", "--device", "cpu", "--json", "--out"]).arg(out.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));

    let events = lines(stdout(&output));
    let keys = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    assert_eq!(of("start")[0], &events[0]);
    assert_eq!(
        keys(&events[0]),
        [
            "batch",
            "data",
            "device",
            "epochs",
            "event",
            "held_out_images",
            "layer",
            "learning_rate",
            "model",
            "parameters",
            "resumed_epochs",
            "resumed_steps",
            "seed",
            "steps_per_epoch",
            "text",
            "train_images",
            "weight_decay"
        ]
    );
    assert_eq!(of("epoch").len(), 12);
    assert_eq!(of("checkpoint").len(), 12);
    assert_eq!(
        keys(of("epoch")[0]),
        [
            "epoch",
            "event",
            "images_per_second",
            "layer",
            "seconds",
            "train_accuracy",
            "train_loss",
            "val_accuracy",
            "val_loss"
        ]
    );
    let end = events.last().unwrap();
    assert_eq!(keys(end), ["device", "epochs", "event", "layer", "seconds", "train_loss", "val_accuracy"]);
    assert_eq!((&end["event"], &end["layer"], &end["device"]), (&"end".into(), &"evonorm_s0".into(), &"cpu".into()));
    assert!(end["val_accuracy"].as_f64().unwrap() >= 0.97, "{end}");

    let kept: Vec<_> = events.iter().filter(|event| event["event"] != "checkpoint").cloned().collect();
    assert_eq!(lines(&fs::read_to_string(out.path().join(METRICS_FILE)).unwrap()), kept);
    check_curve(&fs::read_to_string(out.path().join(CURVE_FILE)).unwrap(), &["evonorm_s0"]);
    assert!(out.path().join(WEIGHTS_FILE).exists());
}

/// Checks that a curve is well-formed, names each layer, and has a line for training and one for
/// held-out images of each in both panels.
fn check_curve(svg: &str, layers: &[&str]) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        match (tag.strip_prefix('/'), tag.ends_with('/')) {
            (Some(name), _) => assert_eq!(open.pop(), Some(name)),
            (None, true) => {}
            (None, false) => open.push(tag.split_whitespace().next().unwrap()),
        }
    }
    assert!(svg.starts_with("<svg ") && open.is_empty(), "left open: {open:?}");
    let texts: Vec<&str> = svg.lines().collect();
    assert!(layers.iter().chain(&["held out", "training"]).all(|name| texts.contains(name)), "{texts:?}");
    let curves = svg.matches("<polyline").count();
    assert!(curves >= 4 * layers.len(), "{curves} lines for {layers:?}");
}

#[test]
fn cifar10_trains_through_the_same_path() {
    let (folder, out) = (data::cifar10_folder(12), TempDir::new().unwrap());
    let dataset = cifar10::load(folder.path()).unwrap();
    let layer = layer("evonorm_s0", &[]);
    let config = TrainConfig { epochs: 1, batch: 20, ..TrainConfig::for_dataset(&dataset) };
    let job = Job { layer: &layer, dataset: &dataset, config, device: &cpu(), out: out.path() };
    let run = run(&job, false, &Stopper::default()).unwrap();
    assert!(matches!(run.ending, Ending::Finished(_)));
}

#[test]
fn wgpu_trains_like_the_cpu() {
    let dataset = few_digits();
    let layer = layer("evonorm_s0", &[]);
    let losses = |device: &OpenDevice| {
        let out = TempDir::new().unwrap();
        let config = TrainConfig { epochs: 1, batch: 32, ..TrainConfig::for_dataset(&dataset) };
        let job = Job { layer: &layer, dataset: &dataset, config, device, out: out.path() };
        let run = run(&job, false, &Stopper::default()).unwrap();
        (run.history[0].train_loss, run.history[0].val_loss)
    };
    let (cpu, wgpu) = (losses(&cpu()), losses(&wgpu()));
    assert!((cpu.0 - wgpu.0).abs() < 0.02 * cpu.0, "training loss {} and {}", cpu.0, wgpu.0);
    assert!((cpu.1 - wgpu.1).abs() < 0.05 * cpu.1, "held-out loss {} and {}", cpu.1, wgpu.1);
}

#[test]
fn compared_layers_see_the_same_images_in_the_same_order() {
    let dataset = few_digits();
    let layers = [layer("evonorm_s0", &[]), layer("gn_silu", &[]), layer("evonorm_s0", &[])];
    let (out, alone) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let device = cpu();
    let config = short_config(&dataset);
    let conditions =
        Conditions { dataset: &dataset, config: config.clone(), device: &device, out: out.path(), resume: false };
    let stopper = Stopper::default();
    let mut observer = &stopper;
    let comparison = train::compare(&layers, &conditions, &mut observer, &stopper.stop).unwrap().unwrap();

    // A layer's run does not depend on its place among others, nor on there being others.
    let job = Job { layer: &layers[1], dataset: &dataset, config, device: &device, out: alone.path() };
    run(&job, false, &stopper).unwrap();
    assert_same_end(&out.path().join("gn_silu"), alone.path());
    assert_same_end(&out.path().join("evonorm_s0"), &out.path().join("evonorm_s0-2"));

    check_curve(&fs::read_to_string(out.path().join(CURVE_FILE)).unwrap(), &["gn_silu"]);
    let table = train::table(&comparison);
    let first_words: Vec<_> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(first_words.len(), 4);
    assert_eq!(first_words[0], "layer");
    assert!(first_words.contains(&"gn_silu"));
}

#[test]
fn a_layer_that_diverges_ends_with_a_message_and_code_1() {
    let out = TempDir::new().unwrap();
    let mut command = normact();
    let output = command
        .args(["train", "evonorm_s0", "--device", "cpu", "--lr", "1e30", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("evonorm_s0 diverged: the loss is not finite in step "), "{}", stdout(&output));
    assert!(!out.path().join(CHECKPOINT_FILE).exists());
    assert_eq!(metrics(out.path()).last().unwrap()["event"], "diverged");
}

#[test]
fn a_comparison_prints_a_table() {
    let out = TempDir::new().unwrap();
    let options = ["train", "--compare", "bn_relu,gn_silu", "--epochs", "1", "--device", "cpu", "--out"];
    let output = normact().args(options).arg(out.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let columns = |line: &str| line.split("  ").filter(|cell| !cell.is_empty()).count();
    let table: Vec<&str> = stdout(&output).lines().take(3).collect();
    assert!(table[0].starts_with("layer    held out  val loss  train loss  parameters"), "{}", stdout(&output));
    assert_eq!(table.iter().map(|line| columns(line)).collect::<Vec<_>>(), [7, 7, 7], "{}", stdout(&output));
    for layer in ["bn_relu", "gn_silu"] {
        assert!(table[1..].iter().any(|line| line.starts_with(layer)), "{}", stdout(&output));
    }
}
