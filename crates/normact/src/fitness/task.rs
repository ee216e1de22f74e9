//! The proxy task: short training on small images, a fixed part of which is set aside to validate with.

use burn::tensor::{Device, Int, Tensor};
use clap::ValueEnum;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::anchors::Anchor;
use crate::data::{Dataset, Sample, Split};
use crate::device::OpenDevice;
use crate::{Failure, Impossible};

/// What can be chosen about training. The defaults are those of the published search with batch
/// statistics; [`TaskConfig::batch_free`] are those of the one without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TaskConfig {
    /// Height and width of the part that is cut out of an image, at random in training and from the
    /// middle otherwise. Images that are smaller are taken whole.
    pub crop: usize,
    /// Whether half of the training images are mirrored left to right. `None` is what suits the images:
    /// not for digits.
    pub mirror: Option<bool>,
    /// Images of one step.
    pub batch: usize,
    /// Steps of a whole training.
    pub steps: usize,
    /// How the learning rate goes.
    pub schedule: Schedule,
    /// The learning rate at the start.
    pub learning_rate: f64,
    /// Of gradient descent, in Nesterov's form.
    pub momentum: f64,
    /// Decay of the weights of convolutions and of the last layer.
    pub weight_decay: f64,
    /// The share of the training images that is set aside and measured.
    pub set_aside: f64,
    /// Which images the accuracy is of.
    pub measure_on: MeasureOn,
}

impl Default for TaskConfig {
    fn default() -> Self {
        Self {
            crop: 24,
            mirror: None,
            batch: 128,
            steps: 2000,
            schedule: Schedule::Constant,
            learning_rate: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            set_aside: 0.2,
            measure_on: MeasureOn::Validation,
        }
    }
}

/// The learning rate over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same for all steps
    #[default]
    Constant,
    /// Half a cosine down to 0
    Cosine,
}

/// Which images are trained on, and which measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MeasureOn {
    /// A part of the training images is set aside and measured; a search must not see the held-out images
    #[default]
    Validation,
    /// All training images are trained on and the held-out images measured: for ranking the best again
    HeldOut,
}

impl TaskConfig {
    /// The published search without batch statistics: 5000 steps with a cosine.
    pub fn batch_free() -> Self {
        Self { steps: 5000, schedule: Schedule::Cosine, ..Self::default() }
    }

    /// What suits `dataset`: the published defaults, and for a few small images steps of 32 images with a
    /// learning rate as much smaller, and 300 of them.
    pub fn for_dataset(dataset: &Dataset) -> Self {
        if dataset.train.len() < 10_000 {
            Self { batch: 32, learning_rate: 0.025, steps: 300, ..Self::default() }
        } else {
            Self::default()
        }
    }

    /// Every option that is not possible, whatever the images.
    pub fn problems(&self) -> Vec<Impossible> {
        let mut problems = vec![];
        let mut refuse = |key, message: String, help: &str| problems.push(Impossible::new(key, message, help));
        if self.batch == 0 {
            refuse("batch", "a batch of 0 images trains nothing".to_owned(), "give `batch` 1 or more");
        }
        if self.crop == 0 {
            refuse("crop", "a crop of 0 pixels shows nothing".to_owned(), "give `crop` 1 or more");
        }
        if self.steps == 0 {
            refuse("steps", "training for 0 steps is nothing to do".to_owned(), "give `steps` 1 or more");
        }
        let rate = self.learning_rate;
        if !(rate.is_finite() && rate > 0.0) {
            let message = format!("a learning rate of {rate} does not train");
            refuse("learning_rate", message, "give `learning_rate` a positive number, such as 0.1");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            let message = format!("a momentum of {} is not possible", self.momentum);
            refuse("momentum", message, "give `momentum` a number from 0 to below 1, such as 0.9");
        }
        let decay = self.weight_decay;
        if !(decay.is_finite() && decay >= 0.0) {
            let message = format!("a weight decay of {decay} is not possible");
            refuse("weight_decay", message, "give `weight_decay` 0 or a small positive number, such as 1e-4");
        }
        if !(self.set_aside > 0.0 && self.set_aside < 1.0) {
            let message = format!("a share of {} cannot be set aside", self.set_aside);
            refuse("set_aside", message, "give `set_aside` a number above 0 and below 1, such as 0.2");
        }
        problems
    }

    /// The learning rate of a step; the first is 0.
    pub(super) fn rate(&self, step: usize) -> f64 {
        match self.schedule {
            Schedule::Constant => self.learning_rate,
            Schedule::Cosine => {
                let done = (step as f64 / self.steps as f64).min(1.0);
                self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

/// Images measured at a time; the result does not depend on it.
const MEASURED_AT_A_TIME: usize = 256;

/// A task: images, options, and where tensors live.
#[derive(Debug, Clone)]
pub struct Task<'a> {
    dataset: &'a Dataset,
    device: &'a OpenDevice,
    config: TaskConfig,
    trained_on: Vec<usize>,
    measured: Vec<usize>,
    window: usize,
}

impl<'a> Task<'a> {
    /// A task whose options are possible for these images.
    ///
    /// # Errors
    /// An option is not possible; the message names it.
    pub fn new(dataset: &'a Dataset, config: TaskConfig, device: &'a OpenDevice) -> Result<Self, Failure> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem.into());
        }
        let (measured, trained_on): (Vec<usize>, Vec<usize>) = match config.measure_on {
            MeasureOn::Validation => (0..dataset.train.len()).partition(|index| is_set_aside(*index, config.set_aside)),
            MeasureOn::HeldOut => ((0..dataset.held_out.len()).collect(), (0..dataset.train.len()).collect()),
        };
        check_images(&config, trained_on.len(), measured.len())?;
        let window = config.crop.min(dataset.shape.height).min(dataset.shape.width);
        Ok(Self { dataset, device, config, trained_on, measured, window })
    }

    /// The options.
    pub fn config(&self) -> &TaskConfig {
        &self.config
    }

    /// The images.
    pub fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// Where tensors live.
    pub(super) fn device(&self) -> &'a Device {
        &self.device.device
    }

    /// What people call it: `cpu` or `wgpu`.
    pub fn device_name(&self) -> &'static str {
        self.device.name
    }

    /// The images of each step, drawn without end: pass after pass over the training images, each in an
    /// order of its own. Images that do not fill a last batch wait for another pass.
    pub(super) fn training_samples(&self, seed: u64) -> impl Iterator<Item = Vec<Sample>> + use<'_> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        // Stream 0 is left to the initial weights.
        generator.set_stream(1);
        let batch = self.config.batch;
        let mut pending: Vec<Sample> = Vec::new();
        std::iter::from_fn(move || {
            if pending.len() < batch {
                pending = self.pass(&mut generator);
            }
            Some(pending.split_off(pending.len() - batch))
        })
    }

    fn pass(&self, generator: &mut ChaCha8Rng) -> Vec<Sample> {
        let mut order = self.trained_on.clone();
        order.shuffle(generator);
        let (top, left) = (self.dataset.shape.height - self.window, self.dataset.shape.width - self.window);
        let mirror = self.config.mirror.unwrap_or(self.dataset.augmentation.mirror);
        order
            .into_iter()
            .map(|index| Sample {
                index,
                // An image that moves up by `top` rows has its row `top` at the top of the window.
                down: -(generator.random_range(0..=top) as isize),
                right: -(generator.random_range(0..=left) as isize),
                mirrored: mirror && generator.random::<bool>(),
            })
            .collect()
    }

    /// The images of a step as an anchor takes them.
    pub(super) fn training_batch(&self, samples: &[Sample], anchor: &Anchor, device: &Device) -> Batch {
        self.batch(&self.dataset.train, samples, anchor, device)
    }

    /// The images that are measured, from their middle.
    pub(super) fn measured_batches(&self, anchor: &Anchor) -> impl Iterator<Item = Batch> {
        let split = match self.config.measure_on {
            MeasureOn::Validation => &self.dataset.train,
            MeasureOn::HeldOut => &self.dataset.held_out,
        };
        let middle = |length: usize| -(((length - self.window) / 2) as isize);
        let (down, right) = (middle(self.dataset.shape.height), middle(self.dataset.shape.width));
        self.measured.chunks(MEASURED_AT_A_TIME).map(move |indices| {
            let samples: Vec<Sample> =
                indices.iter().map(|index| Sample { down, right, ..Sample::plain(*index) }).collect();
            self.batch(split, &samples, anchor, self.device())
        })
    }

    fn batch(&self, split: &Split, samples: &[Sample], anchor: &Anchor, device: &Device) -> Batch {
        let (images, labels) = self.dataset.cropped_batch(split, samples, self.window, anchor.resolution, device);
        Batch { images, labels }
    }
}

/// Images and their labels.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) images: Tensor<4>,
    pub(super) labels: Tensor<1, Int>,
}

/// Whether an image is set aside: at a share of a fifth every fifth one, and so on. The images of a class are next
/// to each other in some data sets, and this takes as many of each.
fn is_set_aside(index: usize, share: f64) -> bool {
    let among = |count: usize| (count as f64 * share) as usize;
    among(index + 1) > among(index)
}

/// Whether there are images enough.
fn check_images(config: &TaskConfig, trained_on: usize, measured: usize) -> Result<(), Failure> {
    let refuse = |message: String, help: &str| Err(Failure::new(message).help(help));
    if measured == 0 {
        return refuse(
            format!("{trained_on} images are too few to set some aside"),
            "give more images to train on, set a larger share aside, or measure on the held-out images",
        );
    }
    if config.batch > trained_on {
        return refuse(
            format!("a batch of {} cannot be taken from {trained_on} images", config.batch),
            "give `batch` a number up to that of the images",
        );
    }
    Ok(())
}
