//! `normact probe`: would a search reject the layer, and with what figures?

use std::path::{Path, PathBuf};

use normact_syntax::Code;
use serde::Serialize;

use super::{LayerArgs, Outcome, print, print_json};
use crate::anchors::{Anchor, Architecture};
use crate::data::{Dataset, cifar10, digits};
use crate::device::{self, DeviceChoice};
use crate::fitness::{Quality, Rejection, Stability, Task, TaskConfig, Test, probe};
use crate::search::{self, Config};
use crate::{Failure, load};

const EXAMPLES: &str = "\
Examples:
  normact probe evonorm_s0
  normact probe my.nact --anchor resnet-50 --json
  normact probe my.nact --data cifar-10-batches-bin
  normact probe my.nact --config examples/search/digits.toml

Structure: the result depends on x, and no moment averages what does not vary. Quality: a short
training reaches a fair accuracy. Stability: convolution weights moved by gradient ascent on the norm
of the loss's gradient do not make it grow without bound.

With --config the tests are those of that search: its networks, data, training and limits. Without it, on
the digits the networks are small (an eighth of the channels, a third of the blocks, images of
12x12) and a step has 32 images; on CIFAR-10 they are those of the published search. --width, --depth and
--resolution change either. Exit codes: 0 the layer passes, 1 it is rejected, 2 bad use.";

/// Test whether a layer is worth training: structure, quality, stability
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The file of a search: whether that would reject the layer
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    tests: TestArgs,

    /// Where to run
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// Print one JSON object with every figure
    #[arg(long)]
    json: bool,
}

/// The tests, where no file says what they are.
#[derive(Debug, Clone, clap::Args)]
#[group(conflicts_with = "config", multiple = true)]
struct TestArgs {
    /// The networks to test it in [default: all three]
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    anchor: Vec<Architecture>,

    /// A folder with CIFAR-10 in its binary form, in place of the handwritten digits
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Multiply the channels of the published networks with this
    #[arg(long, value_name = "FACTOR")]
    width: Option<f64>,

    /// Multiply the blocks of each stage of the published networks with this
    #[arg(long, value_name = "FACTOR")]
    depth: Option<f64>,

    /// Height and width that images are scaled to
    #[arg(long, value_name = "PIXELS")]
    resolution: Option<usize>,

    /// Images of one step [default: 32, for CIFAR-10 128]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// The learning rate of the quality test [default: 0.025, for CIFAR-10 0.1]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,

    /// Steps of the quality test; 0 leaves it out [default: 100]
    #[arg(long, value_name = "N")]
    quality_steps: Option<usize>,

    /// The accuracy it asks for, 0 to 1 [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    accuracy: Option<f64>,

    /// Steps of the stability test; 0 leaves it out [default: 100]
    #[arg(long, value_name = "N")]
    stability_steps: Option<usize>,

    /// The size of its steps [default: 0.1]
    #[arg(long, value_name = "SIZE")]
    step_size: Option<f64>,

    /// The norm of the gradient that it does not allow [default: 1e8]
    #[arg(long, value_name = "NORM")]
    limit: Option<f64>,

    /// Decides the initial weights and the images [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Everything that decides the tests.
struct Setting {
    dataset: Dataset,
    /// The networks with the names that people know them by.
    anchors: Vec<(String, Anchor)>,
    task: TaskConfig,
    rejection: Rejection,
    seed: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    layer: &'a str,
    passed: bool,
    data: &'static str,
    device: &'static str,
    seed: u64,
    tests: &'a [Test],
    seconds: f64,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let setting = match &args.config {
        Some(file) => Setting::of_search(file)?,
        None => Setting::of_options(&args.tests)?,
    };
    // What is no layer for other commands is a negative answer here.
    let layer = load::load_tolerating(&[Code::IgnoresInput], &args.layer.layer, &args.layer.set)?.layer;
    let device = device::open(args.device)?;
    let Setting { dataset, anchors, task, rejection, seed } = &setting;
    let task = Task::new(dataset, task.clone(), &device)?;
    let networks: Vec<Anchor> = anchors.iter().map(|(_, anchor)| *anchor).collect();
    let show = |test: &Test| if args.json { Ok(()) } else { print(&line(test, anchors)) };
    let tests = probe(&layer, &networks, &task, rejection, *seed, &mut |test| show(test))?;
    let (passed, seconds) = (tests.iter().all(|test| test.passed), tests.iter().map(|test| test.seconds).sum());
    if args.json {
        print_json(&Report {
            layer: &layer.name,
            passed,
            data: dataset.name,
            device: device.name,
            seed: *seed,
            tests: &tests,
            seconds,
        })?;
    } else {
        let verdict = if passed { "passes" } else { "is rejected" };
        print(&format!("{} {verdict} ({seconds:.1} s on {}, {})\n", layer.name, device.name, dataset.name))?;
    }
    Ok(if passed { Outcome::Success } else { Outcome::Negative })
}

impl Setting {
    fn of_search(file: &Path) -> Result<Self, Failure> {
        let (config, _) = Config::read(file)?;
        let dataset = search::dataset(&config)?;
        let Config { anchors, task, rejection, search, .. } = config;
        Ok(Self { dataset, anchors, task, rejection, seed: search.training_seed })
    }

    fn of_options(args: &TestArgs) -> Result<Self, Failure> {
        let chosen = if args.anchor.is_empty() { &Architecture::ALL[..] } else { &args.anchor };
        let anchors: Vec<(String, Anchor)> =
            chosen.iter().map(|architecture| (architecture.name().to_owned(), sized(*architecture, args))).collect();
        anchors.iter().try_for_each(|(_, anchor)| anchor.check())?;
        let (quality, stability) = (Quality::default(), Stability::default());
        let quality = Quality {
            steps: args.quality_steps.unwrap_or(quality.steps),
            accuracy: args.accuracy.unwrap_or(quality.accuracy),
        };
        let stability = Stability {
            steps: args.stability_steps.unwrap_or(stability.steps),
            step_size: args.step_size.unwrap_or(stability.step_size),
            limit: args.limit.unwrap_or(stability.limit),
        };
        let rejection = Rejection {
            quality: (quality.steps > 0).then_some(quality),
            stability: (stability.steps > 0).then_some(stability),
            ..Rejection::default()
        };
        rejection.check()?;
        let dataset = match &args.data {
            Some(folder) => cifar10::load(folder)?,
            None => digits::load(),
        };
        let base = TaskConfig::for_dataset(&dataset);
        let task = TaskConfig {
            batch: args.batch.unwrap_or(base.batch),
            learning_rate: args.lr.unwrap_or(base.learning_rate),
            ..base
        };
        Ok(Self { dataset, anchors, task, rejection, seed: args.seed.unwrap_or(0) })
    }
}

fn sized(architecture: Architecture, args: &TestArgs) -> Anchor {
    let base = if args.data.is_some() { Anchor::search(architecture) } else { Anchor::small(architecture) };
    Anchor {
        width: args.width.unwrap_or(base.width),
        depth: args.depth.unwrap_or(base.depth),
        resolution: args.resolution.unwrap_or(base.resolution),
        ..base
    }
}

/// A test as people read it.
fn line(test: &Test, anchors: &[(String, Anchor)]) -> String {
    let in_network = anchors.iter().find(|(_, anchor)| Some(*anchor) == test.anchor);
    let place = in_network.map_or("-", |(name, _)| name.as_str());
    let verdict = if test.passed { "passed" } else { "FAILED" };
    format!("{:<10} {place:<16} {verdict}  {:>6.1} s  {}\n", test.test.name(), test.seconds, test.detail)
}
