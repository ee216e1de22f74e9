//! `normact train`: a small network for images with the user's layer as its norm-activation, trained
//! until it shows what the layer is worth.
//!
//! [`train`] is the whole run. It is a function of the layer, the images and the configuration:
//! initial weights, the order of images and their augmentation come from the seed, losses are
//! read often but added up in the order of steps, and a checkpoint holds everything else. So a run
//! that was stopped anywhere and resumed ends with the same bits as one that was not.

mod checkpoint;
mod compare;
mod curve;
mod events;
mod model;
mod optimizer;
mod progress;
mod state;
mod weights;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use normact_ir::Layer;
use serde::{Deserialize, Serialize};

pub use checkpoint::{CHECKPOINT_FILE, Checkpoint};
pub use compare::{Conditions, compare, folders, table};
pub use curve::draw;
pub use events::{Checkpointed, Comparison, Diverged, End, EpochEnd, Event, Interrupted, Row, Start};
pub use model::{ModelName, ResNet};
pub(crate) use model::{enter, pooled};
pub use progress::Bars;
pub use state::StepReport;

use crate::Failure;
use crate::data::{Dataset, Sample, Split};
use crate::device::OpenDevice;
use crate::files;
use optimizer::Schedule;
pub(crate) use optimizer::Sgd;
use state::{Clock, Progress};
pub(crate) use state::{Readings, Totals};
pub(crate) use weights::{Weights, parameter_count};

/// The file of events in the folder of a run.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The learning curve in the folder of a run.
pub const CURVE_FILE: &str = "curve.svg";
/// The trained weights in the folder of a run.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Of the gradient descent.
const MOMENTUM: f64 = 0.9;
/// Steps between readings of the loss. Reading makes the device finish its queue, so not every step.
const STEPS_PER_READING: usize = 10;
/// Long epochs are also saved in between.
const TIME_BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(120);
/// Images measured at a time; the result does not depend on it.
const HELD_OUT_BATCH: usize = 256;

/// What the user can choose about a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The network.
    pub model: ModelName,
    /// Times each image is seen.
    pub epochs: usize,
    /// Images of one step.
    pub batch: usize,
    /// Highest learning rate; it rises to it at first and then falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Decay of the weights of convolutions and of the last layer.
    pub weight_decay: f64,
    /// Decides the initial weights and the order and augmentation of images.
    pub seed: u64,
}

impl TrainConfig {
    /// What suits `dataset`.
    pub fn for_dataset(dataset: &Dataset) -> Self {
        let (epochs, batch) = if dataset.train.len() < 10_000 { (12, 32) } else { (30, 128) };
        Self { model: ModelName::ResnetTiny, epochs, batch, learning_rate: 0.1, weight_decay: 5e-4, seed: 0 }
    }

    /// The options in which `other` differs, each as `--option ours (now theirs)`.
    fn differences(&self, other: &Self) -> Vec<String> {
        let options = |config: &Self| {
            [
                ("--model", config.model.name().to_owned()),
                ("--epochs", config.epochs.to_string()),
                ("--batch", config.batch.to_string()),
                ("--lr", config.learning_rate.to_string()),
                ("--weight-decay", config.weight_decay.to_string()),
                ("--seed", config.seed.to_string()),
            ]
        };
        let pairs = options(self).into_iter().zip(options(other));
        pairs
            .filter(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((name, ours), (_, theirs))| format!("{name} {ours} (now {theirs})"))
            .collect()
    }

    fn check(&self, dataset: &Dataset) -> Result<(), Failure> {
        let refuse = |message: String, help: &str| Err(Failure::new(message).help(help));
        if self.epochs == 0 {
            return refuse("training for 0 epochs is nothing to do".to_owned(), "give `--epochs` 1 or more");
        }
        if self.batch == 0 || self.batch > dataset.train.len() {
            return refuse(
                format!("a batch of {} cannot be taken from {} images", self.batch, dataset.train.len()),
                "give `--batch` a number between 1 and the number of images",
            );
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse(
                format!("a learning rate of {} does not train", self.learning_rate),
                "give `--lr` a positive number, such as 0.1",
            );
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse(
                format!("a weight decay of {} is not possible", self.weight_decay),
                "give `--weight-decay` 0 or a small positive number, such as 5e-4",
            );
        }
        Ok(())
    }
}

/// One run: what is trained on what, where, and where its files go.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// The layer.
    pub layer: &'a Layer,
    /// The images.
    pub dataset: &'a Dataset,
    /// What the user chose.
    pub config: TrainConfig,
    /// Where tensors live.
    pub device: &'a OpenDevice,
    /// The folder of the run; made where it is missing.
    pub out: &'a Path,
}

impl Job<'_> {
    /// The layer as text, settings included; it goes into the files and identifies the run.
    fn text(&self) -> String {
        normact_syntax::print(self.layer)
    }

    /// The network at its initial weights, on the plain device.
    fn network(&self) -> Result<ResNet, Failure> {
        let TrainConfig { model, seed, .. } = self.config;
        ResNet::new(model, self.layer, self.dataset, seed, &self.device.device)
    }

    /// Images that do not fill a last batch are left out of the epoch: a small batch has poor
    /// statistics, and the next epoch leaves out others.
    fn steps_per_epoch(&self) -> usize {
        self.dataset.train.len() / self.config.batch
    }

    fn start(&self, parameters: usize, progress: &Progress) -> Event {
        Event::Start(Start {
            layer: self.layer.name.clone(),
            text: self.text(),
            device: self.device.name.to_owned(),
            data: self.dataset.name.to_owned(),
            train_images: self.dataset.train.len(),
            held_out_images: self.dataset.held_out.len(),
            parameters,
            steps_per_epoch: self.steps_per_epoch(),
            resumed_epochs: progress.history.len(),
            resumed_steps: progress.step,
            config: self.config.clone(),
        })
    }

    /// Rewrites the metrics and the curve. Both follow from the history, so a resumed run's are whole.
    fn write_history(&self, parameters: usize, history: &[EpochEnd], last: Option<Event>) -> Result<(), Failure> {
        let start = self.start(parameters, &Progress::default());
        let epochs = history.iter().cloned().map(Event::Epoch);
        let mut lines = String::new();
        for event in std::iter::once(start).chain(epochs).chain(last) {
            lines.push_str(&event.to_line()?);
            lines.push('\n');
        }
        files::write(&self.out.join(METRICS_FILE), lines.as_bytes())?;
        let curve = draw(&[(&self.layer.name, history)])?;
        files::write(&self.out.join(CURVE_FILE), curve.as_bytes())
    }
}

/// Watches a run.
pub trait Observer {
    /// Something happened that is worth a line.
    ///
    /// # Errors
    /// Where it cannot be passed on; the run ends with this failure.
    fn event(&mut self, event: &Event) -> Result<(), Failure>;

    /// Some steps are done.
    fn steps(&mut self, _report: &StepReport) {}
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// All epochs are done.
    Finished(End),
    /// It was asked to stop and can be resumed.
    Interrupted,
    /// The loss stopped being finite.
    Diverged(Diverged),
}

/// What is left of a run beside its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Trainable numbers in the network.
    pub parameters: usize,
    /// The complete epochs.
    pub history: Vec<EpochEnd>,
    /// How it ended.
    pub ending: Ending,
}

/// Trains until the last epoch is done, `stop` is set or the loss stops being finite. A `saved`
/// checkpoint must be of the same run. When `stop` is set, the step under way is finished and a
/// checkpoint is written.
///
/// # Errors
/// Where the configuration is not possible, the layer cannot be built, the checkpoint is of another
/// run, a file cannot be written, the device fails, or `observer` does.
pub fn train(
    job: &Job<'_>,
    saved: Option<Checkpoint>,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Run, Failure> {
    job.config.check(job.dataset)?;
    std::fs::create_dir_all(job.out)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", job.out.display())))?;
    let (mut model, mut sgd, mut progress) = match saved {
        Some(checkpoint) => checkpoint.restore(job)?,
        None => {
            checkpoint::refuse_unfinished(job.out)?;
            checkpoint::clear(job.out)?;
            (job.network()?.train(), Sgd::new(MOMENTUM, job.config.weight_decay), Progress::default())
        }
    };

    let TrainConfig { epochs, batch, learning_rate: peak, seed, .. } = job.config;
    let steps = job.steps_per_epoch();
    let schedule = Schedule { peak, steps: epochs.saturating_mul(steps) };
    let parameters = model.parameter_count();
    let trainable = job.device.device.clone().autodiff();
    observer.event(&job.start(parameters, &progress))?;

    while progress.history.len() < epochs {
        let epoch = progress.history.len();
        let samples = job.dataset.epoch(seed, epoch);
        let mut readings = Readings::default();
        let mut clock = Clock::resumed_at(progress.seconds);
        for samples in samples.chunks_exact(batch).skip(progress.step) {
            let (images, labels) = job.dataset.batch(&job.dataset.train, samples, &trainable);
            let (scores, loss) = classify(&model, images, labels.clone());
            readings.push(scores.inner(), labels.inner(), loss.clone().inner());
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = sgd.step(model, gradients, schedule.rate(epoch * steps + progress.step));
            progress.step += 1;

            let stopping = stop.load(Ordering::SeqCst);
            let saving = clock.since_checkpoint() >= TIME_BETWEEN_CHECKPOINTS;
            let read = stopping || saving || readings.len() == STEPS_PER_READING || progress.step == steps;
            if read {
                if let Some(steps_ago) = readings.add_to(&mut progress.totals)? {
                    return diverged(job, parameters, progress.history, observer, Some(progress.step - steps_ago));
                }
                progress.seconds = clock.seconds();
                observer.steps(&progress.report(epochs, steps));
            }
            if stopping {
                return interrupted(job, parameters, &model, &sgd, progress, observer);
            }
            if saving {
                save(job, &model, &sgd, &progress, observer)?;
                clock.checkpoint_written();
            }
        }

        let held_out = evaluate(&model.valid(), job.dataset, &job.dataset.held_out, &job.device.device, stop)?;
        let Some(held_out) = held_out else {
            return interrupted(job, parameters, &model, &sgd, progress, observer);
        };
        if !held_out.loss.is_finite() {
            return diverged(job, parameters, progress.history, observer, None);
        }
        progress = progress.next_epoch(&job.layer.name, held_out, clock.seconds());
        save(job, &model, &sgd, &progress, observer)?;
        job.write_history(parameters, &progress.history, None)?;
        if let Some(done) = progress.history.last() {
            observer.event(&Event::Epoch(done.clone()))?;
        }
    }
    finished(job, parameters, &model, progress.history, observer)
}

/// Scores of the images, and their mean cross-entropy.
fn classify(model: &ResNet, images: Tensor<4>, labels: Tensor<1, Int>) -> (Tensor<2>, Tensor<1>) {
    let scores = model.forward(images);
    let loss = CrossEntropyLossConfig::new().init(&scores.device()).forward(scores.clone(), labels);
    (scores, loss)
}

/// Measures a network on the plain device; nothing where `stop` was set meanwhile.
fn evaluate(
    model: &ResNet,
    dataset: &Dataset,
    split: &Split,
    device: &Device,
    stop: &AtomicBool,
) -> Result<Option<Totals>, Failure> {
    let samples: Vec<Sample> = (0..split.len()).map(Sample::plain).collect();
    let mut totals = Totals::default();
    for samples in samples.chunks(HELD_OUT_BATCH) {
        let (images, labels) = dataset.batch(split, samples, device);
        let (scores, loss) = classify(model, images, labels.clone());
        let mut reading = Readings::default();
        reading.push(scores, labels, loss);
        if reading.add_to(&mut totals)?.is_some() {
            totals.loss = f64::NAN;
            return Ok(Some(totals));
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(None);
        }
    }
    Ok(Some(totals))
}

fn save(
    job: &Job<'_>,
    model: &ResNet,
    sgd: &Sgd,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Result<(), Failure> {
    let path = checkpoint::write(job, model, sgd, progress)?;
    observer.event(&Event::Checkpoint(Checkpointed {
        layer: job.layer.name.clone(),
        epochs: progress.history.len(),
        steps: progress.step,
        path: path.display().to_string(),
    }))
}

fn interrupted(
    job: &Job<'_>,
    parameters: usize,
    model: &ResNet,
    sgd: &Sgd,
    progress: Progress,
    observer: &mut dyn Observer,
) -> Result<Run, Failure> {
    save(job, model, sgd, &progress, observer)?;
    observer.event(&Event::Interrupted(Interrupted {
        layer: job.layer.name.clone(),
        epochs: progress.history.len(),
        steps: progress.step,
    }))?;
    Ok(Run { parameters, history: progress.history, ending: Ending::Interrupted })
}

fn diverged(
    job: &Job<'_>,
    parameters: usize,
    history: Vec<EpochEnd>,
    observer: &mut dyn Observer,
    step: Option<usize>,
) -> Result<Run, Failure> {
    let diverged = Diverged { layer: job.layer.name.clone(), epoch: history.len() + 1, step };
    // Continuing would lead here again.
    checkpoint::clear(job.out)?;
    job.write_history(parameters, &history, Some(Event::Diverged(diverged.clone())))?;
    observer.event(&Event::Diverged(diverged.clone()))?;
    Ok(Run { parameters, history, ending: Ending::Diverged(diverged) })
}

fn finished(
    job: &Job<'_>,
    parameters: usize,
    model: &ResNet,
    history: Vec<EpochEnd>,
    observer: &mut dyn Observer,
) -> Result<Run, Failure> {
    let last = history.last().ok_or_else(|| Failure::new("the run has no epoch"))?;
    let end = End {
        layer: job.layer.name.clone(),
        device: job.device.name.to_owned(),
        epochs: history.len(),
        train_loss: last.train_loss,
        val_accuracy: last.val_accuracy,
        seconds: history.iter().map(|epoch| epoch.seconds).sum(),
    };
    checkpoint::write_weights(job, model, &job.out.join(WEIGHTS_FILE))?;
    job.write_history(parameters, &history, Some(Event::End(end.clone())))?;
    observer.event(&Event::End(end.clone()))?;
    Ok(Run { parameters, history, ending: Ending::Finished(end) })
}
