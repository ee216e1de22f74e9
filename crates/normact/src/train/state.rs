//! Where a run is: epochs done, sums of the epoch under way, and losses not yet read.

use std::time::{Duration, Instant};

use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

use super::events::EpochEnd;
use crate::Failure;

/// How far a run is, apart from weights and velocities.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The complete epochs.
    pub(super) history: Vec<EpochEnd>,
    /// Steps done in the next one.
    pub(super) step: usize,
    /// What those steps came to.
    pub(super) totals: Totals,
    /// Seconds they took.
    pub(super) seconds: f64,
}

/// How the current epoch goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The first epoch is 1.
    pub epoch: usize,
    /// Epochs of the run.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Mean loss over the epoch so far.
    pub loss: f64,
    /// Share of images classified rightly over the epoch so far.
    pub accuracy: f64,
    /// Speed over the epoch so far.
    pub images_per_second: f64,
}

impl Progress {
    pub(super) fn report(&self, epochs: usize, steps: usize) -> StepReport {
        StepReport {
            epoch: self.history.len() + 1,
            epochs,
            step: self.step,
            steps,
            loss: self.totals.mean_loss(),
            accuracy: self.totals.accuracy(),
            images_per_second: self.images_per_second(),
        }
    }

    /// After an epoch that took `seconds` and was measured by `held_out`.
    pub(super) fn next_epoch(mut self, layer: &str, held_out: Totals, seconds: f64) -> Self {
        self.history.push(EpochEnd {
            layer: layer.to_owned(),
            epoch: self.history.len() + 1,
            train_loss: self.totals.mean_loss(),
            train_accuracy: self.totals.accuracy(),
            val_loss: held_out.mean_loss(),
            val_accuracy: held_out.accuracy(),
            images_per_second: self.images_per_second(),
            seconds,
        });
        Self { history: self.history, ..Self::default() }
    }

    fn images_per_second(&self) -> f64 {
        self.totals.images as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Sums over images.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Of their losses.
    pub(crate) loss: f64,
    /// Of those classified rightly.
    right: f64,
    images: usize,
}

impl Totals {
    pub(crate) fn mean_loss(self) -> f64 {
        self.loss / self.images as f64
    }

    pub(crate) fn accuracy(self) -> f64 {
        self.right / self.images as f64
    }
}

/// Results of steps that are still on the device. They are added up here and in the order of steps,
/// so that the sums do not depend on when they are read.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// Loss and number of right answers of each step.
    pending: Vec<Tensor<1>>,
    images: Vec<usize>,
}

impl Readings {
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Takes the results of a step, all on a plain device.
    pub(crate) fn push(&mut self, scores: Tensor<2>, labels: Tensor<1, Int>, loss: Tensor<1>) {
        let [images, _] = scores.dims();
        let right = scores.argmax(1).squeeze_dim::<1>(1).equal(labels).int().sum().float();
        self.pending.push(Tensor::cat(vec![loss, right], 0));
        self.images.push(images);
    }

    /// Reads what is pending and adds it to `totals`. Where a loss is not finite, says how many steps
    /// before the last one its step was, and adds no more.
    pub(crate) fn add_to(&mut self, totals: &mut Totals) -> Result<Option<usize>, Failure> {
        let steps = self.len();
        let pending = std::mem::take(&mut self.pending);
        let images = std::mem::take(&mut self.images);
        if steps == 0 {
            return Ok(None);
        }
        // A kernel that failed shows here and not before.
        let values: Vec<f32> = Tensor::cat(pending, 0)
            .try_into_vec_as()
            .map_err(|error| Failure::new(format!("the device failed while training: {error}")))?;
        for (index, (value, images)) in values.chunks_exact(2).zip(images).enumerate() {
            if !value[0].is_finite() {
                return Ok(Some(steps - 1 - index));
            }
            totals.loss += f64::from(value[0]) * images as f64;
            totals.right += f64::from(value[1]);
            totals.images += images;
        }
        Ok(None)
    }
}

/// Measures an epoch, with the time that a checkpoint brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    before: f64,
    start: Instant,
    checkpoint: Instant,
}

impl Clock {
    pub(super) fn resumed_at(seconds: f64) -> Self {
        let now = Instant::now();
        Self { before: seconds, start: now, checkpoint: now }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    pub(super) fn since_checkpoint(&self) -> Duration {
        self.checkpoint.elapsed()
    }

    pub(super) fn checkpoint_written(&mut self) {
        self.checkpoint = Instant::now();
    }
}
