//! `normact train`: reads the options, finds the layers, and shows what [`crate::train`] reports.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use normact_ir::Layer;

use super::{Outcome, color_on_stderr, note, print, quoted, stop_on_interrupt};
use crate::Failure;
use crate::data::{Dataset, cifar10, digits};
use crate::device::{self, DeviceChoice, OpenDevice};
use crate::load::{self, Loaded};
use crate::train::{
    self, Bars, CURVE_FILE, Checkpoint, Conditions, Diverged, Ending, Event, Job, ModelName, Observer, Run, StepReport,
    TrainConfig, WEIGHTS_FILE,
};

const EXAMPLES: &str = "\
Examples:
  normact train                                  EvoNorm-S0 on the digits that ship with the program
  normact train bn_relu --device cpu
  normact train my.nact:best --set groups=8 --epochs 20
  normact train --compare evonorm_s0,bn_relu,gn_silu
  normact train --data cifar-10-batches-bin --model resnet-20
  normact train --resume                         go on after Ctrl-C

Files in the folder of the run:
  checkpoint.safetensors  where `--resume` goes on; replaced after every epoch
  metrics.jsonl           the events of the run, as `--json` prints them
  curve.svg               accuracy and loss over the epochs
  model.safetensors       the trained weights

Ctrl-C finishes the step, writes the checkpoint and exits with code 1, as the run is not complete; a
second one stops at once, with code 130. A resumed run ends with the same weights as one that was
never stopped. A layer whose loss stops being finite ends the run with code 1.";

/// Train a small image classifier with a layer as its norm-activation
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A layer: FILE, FILE:NAME, the name of a built-in layer, or - for standard input [default:
    /// evonorm_s0]
    #[arg(value_name = "LAYER")]
    layer: Option<String>,

    /// Train several layers under the same seed and print a table
    #[arg(long, value_name = "A,B,C", value_delimiter = ',', num_args = 1.., conflicts_with = "layer")]
    compare: Vec<String>,

    /// Override a setting of the layer; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Where to run [default: auto, or where the resumed run was]
    #[arg(long, value_enum, value_name = "DEVICE")]
    device: Option<DeviceChoice>,

    /// Print a JSON object for each event
    #[arg(long)]
    json: bool,

    /// A folder with CIFAR-10 in its binary form, in place of the handwritten digits
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The network [default: resnet-tiny]
    #[arg(long, value_enum, value_name = "NAME")]
    model: Option<ModelName>,

    /// How often each image is seen [default: 12, for CIFAR-10 30]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,

    /// Images of one step [default: 32, for CIFAR-10 128]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Highest learning rate of the cosine schedule [default: 0.1]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,

    /// Decay of the weights of convolutions and the last layer [default: 0.0005]
    #[arg(long, value_name = "RATE")]
    weight_decay: Option<f64>,

    /// Decides initial weights, order and augmentation [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// The folder of the run [default: runs/LAYER, or runs/compare]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Go on from the checkpoint in the folder of the run. The layer, `--set` and `--data` must be those
    /// of the run; its other options need not be repeated
    #[arg(long)]
    resume: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`train::train`] has them, and where a layer or the data cannot be read.
pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let specs = if args.compare.is_empty() {
        vec![args.layer.clone().unwrap_or_else(|| "evonorm_s0".to_owned())]
    } else {
        args.compare.clone()
    };
    let layers = specs.iter().map(|spec| layer(spec, &args.set)).collect::<Result<Vec<_>, _>>()?;
    let dataset = match &args.data {
        Some(folder) => cifar10::load(folder)?,
        None => digits::load(),
    };
    let stop = stop_on_interrupt("after this step")?;
    let mut console = Console { json: args.json, bars: Bars::new() };
    if args.compare.is_empty() {
        one(args, &layers[0], &dataset, &mut console, stop)
    } else {
        several(args, &layers, &dataset, &mut console, stop)
    }
}

fn one(
    args: &Args,
    layer: &Layer,
    dataset: &Dataset,
    console: &mut Console,
    stop: &AtomicBool,
) -> Result<Outcome, Failure> {
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&layer.name));
    let saved = args.resume.then(|| Checkpoint::read(&out)).transpose()?;
    let device = open_device(args, saved.as_ref(), console)?;
    let job = Job { layer, dataset, config: configure(args, saved.as_ref(), dataset), device: &device, out: &out };
    let run = train::train(&job, saved, console, stop)?;
    console.result(&summary(&job, &run))?;
    match run.ending {
        Ending::Finished(_) => Ok(Outcome::Success),
        Ending::Interrupted => {
            console.bars.note(&how_to_resume(args, &out));
            Ok(Outcome::Negative)
        }
        Ending::Diverged(_) => Ok(Outcome::Negative),
    }
}

fn several(
    args: &Args,
    layers: &[Layer],
    dataset: &Dataset,
    console: &mut Console,
    stop: &AtomicBool,
) -> Result<Outcome, Failure> {
    let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join("compare"));
    // Where a comparison is resumed, the first layer that got far enough to be saved tells its options.
    let saved = if args.resume {
        let folders = train::folders(layers, &out);
        let first = folders.iter().find(|folder| folder.join(train::CHECKPOINT_FILE).exists());
        Some(Checkpoint::read(first.unwrap_or(&out))?)
    } else {
        None
    };
    let device = open_device(args, saved.as_ref(), console)?;
    let conditions = Conditions {
        dataset,
        config: configure(args, saved.as_ref(), dataset),
        device: &device,
        out: &out,
        resume: args.resume,
    };
    let Some(comparison) = train::compare(layers, &conditions, console, stop)? else {
        console.bars.note(&how_to_resume(args, &out));
        return Ok(Outcome::Negative);
    };
    console.result(&format!("{}\ncurve    {}\n", train::table(&comparison), out.join(CURVE_FILE).display()))?;
    match comparison.results.iter().any(|row| row.diverged) {
        true => Ok(Outcome::Negative),
        false => Ok(Outcome::Success),
    }
}

fn layer(spec: &str, settings: &[String]) -> Result<Layer, Failure> {
    let Loaded { layer, text } = load::load(spec, settings)?;
    if let Some(text) = text.filter(|text| !text.warnings.is_empty()) {
        note(normact_syntax::render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    Ok(layer)
}

/// The options given, over those of the resumed run, over what suits the data.
fn configure(args: &Args, saved: Option<&Checkpoint>, dataset: &Dataset) -> TrainConfig {
    let base = saved.map_or_else(|| TrainConfig::for_dataset(dataset), |checkpoint| checkpoint.config().clone());
    TrainConfig {
        model: args.model.unwrap_or(base.model),
        epochs: args.epochs.unwrap_or(base.epochs),
        batch: args.batch.unwrap_or(base.batch),
        learning_rate: args.lr.unwrap_or(base.learning_rate),
        weight_decay: args.weight_decay.unwrap_or(base.weight_decay),
        seed: args.seed.unwrap_or(base.seed),
    }
}

fn open_device(args: &Args, saved: Option<&Checkpoint>, console: &Console) -> Result<OpenDevice, Failure> {
    let before = saved.map(Checkpoint::device);
    let choice = args.device.unwrap_or(match before {
        Some("cpu") => DeviceChoice::Cpu,
        Some("wgpu") => DeviceChoice::Wgpu,
        Some(_) | None => DeviceChoice::Auto,
    });
    let opened = device::open(choice)?;
    if let Some(before) = before.filter(|before| *before != opened.name) {
        console.bars.note(&format!(
            "the run was on {before} and goes on on {}; its results will not be the same to the last bit",
            opened.name
        ));
    }
    Ok(opened)
}

fn summary(job: &Job<'_>, run: &Run) -> String {
    let name = &job.layer.name;
    match &run.ending {
        Ending::Finished(end) => format!(
            "{name}: {:.2} % of {} held-out images correct after epoch {} (training loss {:.4}, {:.1} s on {})\n\
             curve    {}\n\
             weights  {}\n",
            end.val_accuracy * 100.0,
            job.dataset.held_out.len(),
            end.epochs,
            end.train_loss,
            end.seconds,
            end.device,
            job.out.join(CURVE_FILE).display(),
            job.out.join(WEIGHTS_FILE).display(),
        ),
        Ending::Interrupted => String::new(),
        Ending::Diverged(Diverged { epoch, step, .. }) => {
            let place = match step {
                Some(step) => format!("in step {step} of epoch {epoch}"),
                None => format!("on the held-out images after epoch {epoch}"),
            };
            format!(
                "{name} diverged: the loss is not finite {place}\n\
                 a lower `--lr` may help; a layer that does not bound its output often cannot be trained\n"
            )
        }
    }
}

/// The layer and the data are named again; the checkpoint has the other options.
fn how_to_resume(args: &Args, out: &Path) -> String {
    let mut command = "normact train".to_owned();
    let mut add = |option: &str, value: &str| {
        command.push_str(option);
        command.push_str(&quoted(value));
    };
    args.layer.iter().for_each(|layer| add(" ", layer));
    if !args.compare.is_empty() {
        add(" --compare ", &args.compare.join(","));
    }
    args.set.iter().for_each(|setting| add(" --set ", setting));
    args.data.iter().for_each(|folder| add(" --data ", &folder.to_string_lossy()));
    add(" --out ", &out.to_string_lossy());
    format!("stopped; this continues:\n  {command} --resume")
}

/// Events on standard output for programs, or results there for people; progress on standard error.
struct Console {
    json: bool,
    bars: Bars,
}

impl Console {
    /// Prints a result for people.
    fn result(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { print(text) }
    }
}

impl Observer for Console {
    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        self.bars.event(event);
        if self.json { print(&(event.to_line()? + "\n")) } else { Ok(()) }
    }

    fn steps(&mut self, report: &StepReport) {
        self.bars.steps(report);
    }
}
