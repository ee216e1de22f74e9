//! What a training run reports: one [`Event`] is one JSON line of `train --json` and of
//! `metrics.jsonl`. Keys are stable; other programs rely on them.

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use crate::Failure;

/// One thing that happened, with the layer it happened to. The key `event` names the variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A run starts or continues.
    Start(Start),
    /// An epoch is done and measured.
    Epoch(EpochEnd),
    /// Everything needed to continue is on disk.
    Checkpoint(Checkpointed),
    /// The run was asked to stop; the checkpoint before this event continues it.
    Interrupted(Interrupted),
    /// The loss is no longer a finite number; the run has ended without a result.
    Diverged(Diverged),
    /// The run is complete. The last line of a successful run of one layer.
    End(End),
    /// All runs of a comparison are over. The last line of a comparison.
    Compare(Comparison),
}

impl Event {
    /// The event as one line of JSON, without the line's end.
    ///
    /// # Errors
    /// Never for the events of a run, whose numbers are finite.
    pub fn to_line(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|error| Failure::new(format!("an event cannot be written as JSON: {error}")))
    }
}

/// The whole configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Name of the layer.
    pub layer: String,
    /// The layer as text, with the settings it is trained with.
    pub text: String,
    /// `cpu` or `wgpu`.
    pub device: String,
    /// `digits` or `cifar10`.
    pub data: String,
    /// Number of images to train on.
    pub train_images: usize,
    /// Number of images held out.
    pub held_out_images: usize,
    /// Trainable numbers in the network.
    pub parameters: usize,
    /// Steps of one epoch; images that do not fill a batch wait for another epoch.
    pub steps_per_epoch: usize,
    /// Complete epochs that a checkpoint brought; 0 in a new run.
    pub resumed_epochs: usize,
    /// Steps of the unfinished epoch that a checkpoint brought.
    pub resumed_steps: usize,
    /// What the user can choose.
    #[serde(flatten)]
    pub config: TrainConfig,
}

/// The measurements of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochEnd {
    /// Name of the layer.
    pub layer: String,
    /// The first epoch is 1.
    pub epoch: usize,
    /// Mean cross-entropy of the epoch's training batches, each before its step.
    pub train_loss: f64,
    /// Share of those images classified rightly, 0 to 1.
    pub train_accuracy: f64,
    /// Mean cross-entropy of the held-out images after the epoch.
    pub val_loss: f64,
    /// Share of the held-out images classified rightly after the epoch, 0 to 1.
    pub val_accuracy: f64,
    /// Training speed, without the measuring of held-out images.
    pub images_per_second: f64,
    /// Seconds the epoch took in all.
    pub seconds: f64,
}

/// A checkpoint was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpointed {
    /// Name of the layer.
    pub layer: String,
    /// Complete epochs in it.
    pub epochs: usize,
    /// Steps of the next epoch in it.
    pub steps: usize,
    /// The file.
    pub path: String,
}

/// The run was asked to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Name of the layer.
    pub layer: String,
    /// Complete epochs.
    pub epochs: usize,
    /// Steps done of the next epoch.
    pub steps: usize,
}

/// The loss is not finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diverged {
    /// Name of the layer.
    pub layer: String,
    /// The epoch it happened in; the first is 1.
    pub epoch: usize,
    /// The step of that epoch; the first is 1. Nothing where only the held-out loss shows it.
    pub step: Option<usize>,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Name of the layer.
    pub layer: String,
    /// `cpu` or `wgpu`.
    pub device: String,
    /// Number of epochs.
    pub epochs: usize,
    /// [`EpochEnd::train_loss`] of the last epoch.
    pub train_loss: f64,
    /// [`EpochEnd::val_accuracy`] of the last epoch.
    pub val_accuracy: f64,
    /// Seconds of all epochs, those before a checkpoint included.
    pub seconds: f64,
}

/// The results of a comparison, in the order the layers were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The seed all runs had.
    pub seed: u64,
    /// One row for each layer.
    pub results: Vec<Row>,
}

/// One layer of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the layer.
    pub layer: String,
    /// Trainable numbers in the network with this layer.
    pub parameters: usize,
    /// Whether the loss stopped being finite.
    pub diverged: bool,
    /// The last complete epoch; nothing where the first did not end.
    pub last: Option<EpochEnd>,
    /// Seconds of all epochs.
    pub seconds: f64,
}
