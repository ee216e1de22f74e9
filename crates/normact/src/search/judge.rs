//! Networks as the fitness of a search.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use normact_ir::Layer;
use normact_search::{Fitness, Protocol, Verdict};

use super::Config;
use super::config::DIGITS;
use crate::Failure;
use crate::anchors::Anchor;
use crate::data::{Dataset, cifar10, digits};
use crate::device::OpenDevice;
use crate::fitness::{self, Evaluation, Rejection, Task, evaluate};

/// The images of a search.
pub(crate) fn dataset(config: &Config) -> Result<Dataset, Failure> {
    match config.search.data.as_str() {
        DIGITS => Ok(digits::load()),
        folder => cifar10::load(Path::new(folder)),
    }
}

/// Trains layers in the networks of a configuration.
#[derive(Debug)]
pub struct Judge<'a> {
    task: Task<'a>,
    names: Vec<String>,
    anchors: Vec<Anchor>,
    rejection: Rejection,
}

impl<'a> Judge<'a> {
    /// The judge of a search.
    ///
    /// # Errors
    /// The options of the training are not possible for these images.
    pub fn new(config: &Config, dataset: &'a Dataset, device: &'a OpenDevice) -> Result<Self, Failure> {
        let task = Task::new(dataset, config.task.clone(), device)?;
        let (names, anchors) = config.anchors.iter().cloned().unzip();
        Ok(Self { task, names, anchors, rejection: config.rejection })
    }

    /// What the configuration calls a network. Of two that are the same a layer fails in the first.
    fn name(&self, anchor: &Anchor) -> Option<&str> {
        let at = self.anchors.iter().position(|known| known == anchor)?;
        Some(&self.names[at])
    }
}

impl Fitness for Judge<'_> {
    fn structure(&self, layer: &Layer) -> Option<String> {
        fitness::degenerate(layer, &self.rejection)
    }

    /// Scores are accuracies on the images set aside. Without tests, structure is looked at all the same: it
    /// costs nothing.
    fn evaluate(
        &mut self,
        layer: &Layer,
        protocol: Protocol,
        seed: u64,
        is_void: &AtomicBool,
    ) -> Result<Verdict, String> {
        let rejection = match protocol {
            Protocol::Tested => self.rejection,
            Protocol::Untested => Rejection { quality: None, stability: None, ..self.rejection },
        };
        let evaluation =
            evaluate(layer, &self.anchors, &self.task, &rejection, seed, &|| !is_void.load(Ordering::Relaxed));
        Ok(match evaluation.map_err(|failure| failure.in_words())? {
            Evaluation::Scores(scores) => Verdict::Scored(scores.iter().map(|score| score.accuracy).collect()),
            Evaluation::Rejected(rejected) => {
                let place = rejected.anchor.and_then(|anchor| self.name(&anchor).map(|name| format!("{name}: ")));
                Verdict::Rejected { reason: rejected.reason, detail: place.unwrap_or_default() + &rejected.detail }
            }
        })
    }
}
