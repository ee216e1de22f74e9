//! `normact probe`: would a search reject the layer, and with what figures?

use std::path::PathBuf;

use normact_syntax::Code;
use serde::Serialize;

use super::{LayerArgs, Outcome, print, print_json};
use crate::anchors::{Anchor, Architecture};
use crate::data::{cifar10, digits};
use crate::device::{self, DeviceChoice};
use crate::fitness::{Quality, Rejection, Stability, Task, TaskConfig, Test, probe};
use crate::{Failure, load};

const EXAMPLES: &str = "\
Examples:
  normact probe evonorm_s0
  normact probe my.nact --anchor resnet-50 --json
  normact probe my.nact --data cifar-10-batches-bin

Structure: the result depends on x, and no moment averages what does not vary. Quality: a short
training reaches a fair accuracy. Stability: convolution weights moved by gradient ascent on the norm
of the loss's gradient do not make it grow without bound.

On the digits the networks are small (an eighth of the channels, a third of the blocks, images of
12x12) and a step has 32 images; on CIFAR-10 they are those of the published search. --width, --depth and
--resolution change either. Exit codes: 0 the layer passes, 1 it is rejected, 2 bad use.";

/// Test whether a layer is worth training: structure, quality, stability
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

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

    /// Steps of the quality test; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 100)]
    quality_steps: usize,

    /// The accuracy it asks for, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    accuracy: f64,

    /// Steps of the stability test; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 100)]
    stability_steps: usize,

    /// The size of its steps
    #[arg(long, value_name = "SIZE", default_value_t = 0.1)]
    step_size: f64,

    /// The norm of the gradient that it does not allow
    #[arg(long, value_name = "NORM", default_value_t = 1e8)]
    limit: f64,

    /// Decides the initial weights and the images
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Where to run
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// Print one JSON object with every figure
    #[arg(long)]
    json: bool,
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
    let anchors = anchors(args);
    anchors.iter().try_for_each(Anchor::check)?;
    let rejection = Rejection {
        quality: (args.quality_steps > 0).then_some(Quality { steps: args.quality_steps, accuracy: args.accuracy }),
        stability: (args.stability_steps > 0).then_some(Stability {
            steps: args.stability_steps,
            step_size: args.step_size,
            limit: args.limit,
        }),
        ..Rejection::default()
    };
    rejection.check()?;
    // What is no layer for other commands is a negative answer here.
    let layer = load::load_tolerating(&[Code::IgnoresInput], &args.layer.layer, &args.layer.set)?.layer;
    let dataset = match &args.data {
        Some(folder) => cifar10::load(folder)?,
        None => digits::load(),
    };
    let device = device::open(args.device)?;
    let base = TaskConfig::for_dataset(&dataset);
    let config = TaskConfig {
        batch: args.batch.unwrap_or(base.batch),
        learning_rate: args.lr.unwrap_or(base.learning_rate),
        ..base
    };
    let task = Task::new(&dataset, config, &device)?;
    let show = |test: &Test| if args.json { Ok(()) } else { print(&line(test)) };
    let tests = probe(&layer, &anchors, &task, &rejection, args.seed, &mut |test| show(test))?;
    let (passed, seconds) = (tests.iter().all(|test| test.passed), tests.iter().map(|test| test.seconds).sum());
    if args.json {
        print_json(&Report {
            layer: &layer.name,
            passed,
            data: dataset.name,
            device: device.name,
            seed: args.seed,
            tests: &tests,
            seconds,
        })?;
    } else {
        let verdict = if passed { "passes" } else { "is rejected" };
        print(&format!("{} {verdict} ({seconds:.1} s on {}, {})\n", layer.name, device.name, dataset.name))?;
    }
    Ok(if passed { Outcome::Success } else { Outcome::Negative })
}

fn anchors(args: &Args) -> Vec<Anchor> {
    let chosen = if args.anchor.is_empty() { &Architecture::ALL[..] } else { &args.anchor };
    let sized = |architecture: &Architecture| {
        let base = if args.data.is_some() { Anchor::search(*architecture) } else { Anchor::small(*architecture) };
        Anchor {
            width: args.width.unwrap_or(base.width),
            depth: args.depth.unwrap_or(base.depth),
            resolution: args.resolution.unwrap_or(base.resolution),
            ..base
        }
    };
    chosen.iter().map(sized).collect()
}

/// A test as people read it.
fn line(test: &Test) -> String {
    let place = test.anchor.map_or("-", |anchor| anchor.architecture.name());
    let verdict = if test.passed { "passed" } else { "FAILED" };
    format!("{:<10} {place:<16} {verdict}  {:>6.1} s  {}\n", test.test.name(), test.seconds, test.detail)
}
