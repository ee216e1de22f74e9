//! What a layer is worth to a search: its accuracy in several networks after a short training, or the
//! reason why it was not trained.
//!
//! [`evaluate`] is the whole of it and stops at the first test a layer fails; [`probe`] makes every test
//! and reports all figures. Both are functions of the layer, the networks, the task and the seed; on the
//! CPU the same values give the same bits. Everything they take and give is plain data with a stable form
//! in JSON.
//!
//! `task` draws batches, `training` trains, `rejection` has the tests and `stability` the one among them that
//! needs second derivatives.

mod rejection;
mod stability;
mod task;
mod training;

use std::time::Instant;

use normact_ir::Layer;
use serde::{Deserialize, Serialize};

pub use normact_search::Reason;
pub(crate) use rejection::degenerate;
pub use rejection::{Figures, Quality, Rejection, Test, structure, test_structure};
pub use stability::{Ascent, AscentEnd, Stability};
pub use task::{MeasureOn, Schedule, Task, TaskConfig};
pub use training::{Score, train_on};

use crate::Failure;
use crate::anchors::Anchor;
use rejection::{test_quality, test_stability};
use training::Training;

/// What a search learns about a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evaluation {
    /// It passed every test and was trained: a score for each anchor, in their order.
    Scores(Vec<Score>),
    /// It failed a test.
    Rejected(Rejected),
}

/// Why a layer was not trained to the end, and what finding that out cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The kind of test.
    pub reason: Reason,
    /// The network in which it failed; nothing for structure.
    pub anchor: Option<Anchor>,
    /// What was found, in words.
    pub detail: String,
    /// Seconds since the evaluation began, those of tests it passed included.
    pub seconds: f64,
}

/// Judges a layer: structure, then quality in each anchor, then stability in each, then the rest of the
/// training in each, and stops at the first test it fails. The training that the quality test began goes
/// on, so that a layer that passes is trained once. Between tests and trainings it looks whether the answer
/// is still wanted.
///
/// # Errors
/// A test is not possible or goes on for longer than the training, a network cannot be built, the
/// device fails, or the answer is no longer wanted. A bad layer is no error.
pub fn evaluate(
    layer: &Layer,
    anchors: &[Anchor],
    task: &Task<'_>,
    rejection: &Rejection,
    seed: u64,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Evaluation, Failure> {
    let go_on = || if is_wanted() { Ok(()) } else { Err(Failure::new("nobody waits for this layer any more")) };
    rejection.check()?;
    let steps = task.config().steps;
    if let Some(quality) = rejection.quality.filter(|quality| quality.steps > steps) {
        return Err(Failure::new(format!(
            "a quality test of {} steps does not fit into a training of {steps}",
            quality.steps
        ))
        .help("train for longer, test earlier, or leave the quality test out"));
    }
    let start = Instant::now();
    let rejected = |test: Test| {
        let Test { test: reason, anchor, detail, .. } = test;
        Ok(Evaluation::Rejected(Rejected { reason, anchor, detail, seconds: start.elapsed().as_secs_f64() }))
    };
    let structure = test_structure(layer, rejection);
    if !structure.passed {
        return rejected(structure);
    }
    // Most layers fail in the first network, and the others are not built for them.
    let mut trainings = Vec::with_capacity(anchors.len());
    for anchor in anchors {
        go_on()?;
        let mut training = Training::new(anchor, layer, task, seed)?;
        if let Some(options) = &rejection.quality {
            let test = test_quality(&mut training, options)?;
            if !test.passed {
                return rejected(test);
            }
        }
        trainings.push(training);
    }
    if let Some(options) = &rejection.stability {
        for anchor in anchors {
            go_on()?;
            let test = test_stability(anchor, layer, task, options, seed)?;
            if !test.passed {
                return rejected(test);
            }
        }
    }
    let finish = |mut training: Training<'_>| {
        go_on()?;
        training.advance(steps)?;
        training.score()
    };
    trainings.into_iter().map(finish).collect::<Result<_, _>>().map(Evaluation::Scores)
}

/// Makes every test of a layer in every anchor and hands each to `observe` as it ends; a layer that fails
/// by structure is not trained at all.
///
/// # Errors
/// As [`evaluate`], and where `observe` fails.
pub fn probe(
    layer: &Layer,
    anchors: &[Anchor],
    task: &Task<'_>,
    rejection: &Rejection,
    seed: u64,
    observe: &mut dyn FnMut(&Test) -> Result<(), Failure>,
) -> Result<Vec<Test>, Failure> {
    rejection.check()?;
    let mut tests = Vec::new();
    let mut done = |test: Test| -> Result<(), Failure> {
        observe(&test)?;
        tests.push(test);
        Ok(())
    };
    let structure = test_structure(layer, rejection);
    let is_trainable = structure.passed;
    done(structure)?;
    for anchor in anchors.iter().filter(|_| is_trainable) {
        if let Some(options) = &rejection.quality {
            done(test_quality(&mut Training::new(anchor, layer, task, seed)?, options)?)?;
        }
        if let Some(options) = &rejection.stability {
            done(test_stability(anchor, layer, task, options, seed)?)?;
        }
    }
    Ok(tests)
}
