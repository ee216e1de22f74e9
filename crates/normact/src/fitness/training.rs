//! Training a network on the task, in pieces: the quality test looks at a training after its first
//! steps, and the same training goes on from there.

use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use normact_ir::Layer;
use serde::{Deserialize, Serialize};

use super::task::{Batch, Task};
use crate::Failure;
use crate::anchors::{Anchor, Ends, Network};
use crate::data::Sample;
use crate::train::{Readings, Sgd, Totals};

/// How good a layer is in one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The network.
    pub anchor: Anchor,
    /// Share of the measured images classified rightly, 0 to 1; 0 where training diverged.
    pub accuracy: f64,
    /// Mean cross-entropy of the measured images; nothing where it is not finite.
    pub loss: Option<f64>,
    /// Steps of training.
    pub steps: usize,
    /// The step in which the loss stopped being finite, where it did; the first is 1.
    pub diverged: Option<usize>,
    /// Seconds that training and measuring took.
    pub seconds: f64,
}

/// Trains `layer` in `anchor` from the initial weights of `seed` to the end of the task, and measures it.
/// The result is the same whenever it is computed on the CPU, apart from `seconds`.
///
/// # Errors
/// The layer or the network cannot be built, or the device fails.
pub fn train_on(anchor: &Anchor, layer: &Layer, task: &Task<'_>, seed: u64) -> Result<Score, Failure> {
    let mut training = Training::new(anchor, layer, task, seed)?;
    training.advance(task.config().steps)?;
    training.score()
}

/// Steps between readings of the loss. Reading makes the device finish its queue, so not every step.
const STEPS_PER_READING: usize = 10;

/// The first steps are read one by one: a layer that makes the loss infinite does so in one of them.
const READ_AT_ONCE: usize = 4;

/// A training under way.
pub(super) struct Training<'a> {
    anchor: Anchor,
    task: &'a Task<'a>,
    network: Network,
    sgd: Sgd,
    samples: Box<dyn Iterator<Item = Vec<Sample>> + 'a>,
    steps: usize,
    diverged: Option<usize>,
    seconds: f64,
}

impl<'a> Training<'a> {
    pub(super) fn new(anchor: &Anchor, layer: &Layer, task: &'a Task<'a>, seed: u64) -> Result<Self, Failure> {
        Ok(Self {
            anchor: *anchor,
            task,
            network: Network::new(anchor, layer, Ends::of(task.dataset()), seed, task.device())?.train(),
            sgd: Sgd::new(task.config().momentum, task.config().weight_decay),
            samples: Box::new(task.training_samples(seed)),
            steps: 0,
            diverged: None,
            seconds: 0.0,
        })
    }

    /// Trains until `steps` steps are done in all, or the loss stops being finite.
    pub(super) fn advance(&mut self, steps: usize) -> Result<(), Failure> {
        let start = Instant::now();
        let trainable = self.task.device().clone().autodiff();
        let mut readings = Readings::default();
        while self.steps < steps && self.diverged.is_none() {
            let samples = self.samples.next().unwrap_or_else(|| unreachable!("samples are drawn without end"));
            let batch = self.task.training_batch(&samples, &self.anchor, &trainable);
            let (scores, loss) = classify(&self.network, &batch);
            readings.push(scores.inner(), batch.labels.inner(), loss.clone().inner());
            let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
            let rate = self.task.config().rate(self.steps);
            self.network = self.sgd.step(self.network.clone(), gradients, rate);
            self.steps += 1;
            if self.steps <= READ_AT_ONCE || readings.len() == STEPS_PER_READING || self.steps == steps {
                let not_finite = readings.add_to(&mut Totals::default())?;
                self.diverged = not_finite.map(|steps_ago| self.steps - steps_ago);
            }
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Measures the network as it is.
    pub(super) fn score(&mut self) -> Result<Score, Failure> {
        let start = Instant::now();
        let mut totals = Totals::default();
        let mut is_finite = self.diverged.is_none();
        if is_finite {
            let network = self.network.valid();
            let mut readings = Readings::default();
            for batch in self.task.measured_batches(&self.anchor) {
                let (scores, loss) = classify(&network, &batch);
                readings.push(scores, batch.labels, loss);
                is_finite &= readings.add_to(&mut totals)?.is_none();
            }
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(Score {
            anchor: self.anchor,
            accuracy: if is_finite { totals.accuracy() } else { 0.0 },
            loss: is_finite.then(|| totals.mean_loss()),
            steps: self.steps,
            diverged: self.diverged,
            seconds: self.seconds,
        })
    }
}

/// Scores of the images, and their mean cross-entropy.
pub(super) fn classify(network: &Network, batch: &Batch) -> (Tensor<2>, Tensor<1>) {
    let scores = network.forward(batch.images.clone());
    let loss = CrossEntropyLossConfig::new().init(&scores.device()).forward(scores.clone(), batch.labels.clone());
    (scores, loss)
}
