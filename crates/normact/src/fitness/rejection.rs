//! The three tests that spare a search the training of hopeless layers, the cheapest first: structure
//! (of the graph alone), quality (a few steps of training), stability ([`super::stability`]).

use std::time::Instant;

use normact_ir::{Finding, Layer, findings};
use normact_search::Reason;
use serde::{Deserialize, Serialize};

use super::stability::{Ascent, AscentEnd, Stability, stability};
use super::task::Task;
use super::training::{Score, Training};
use crate::anchors::Anchor;
use crate::{Failure, Impossible};

/// Which tests are made, and how. `None` leaves a test out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rejection {
    /// Whether a moment of a value that is constant along the axes averaged over rejects a layer: such a
    /// mean is the value itself, such a deviation the root of eps, and the layer has a simpler equal.
    pub degenerate: bool,
    /// Whether results that are the same at every position pass: mere statistics, through which a network sees
    /// no image. In the file of a search this is a key of the space.
    #[serde(skip, default = "yes")]
    pub mere_statistics: bool,
    /// The quality test.
    pub quality: Option<Quality>,
    /// The stability test.
    pub stability: Option<Stability>,
}

impl Default for Rejection {
    fn default() -> Self {
        Self {
            degenerate: true,
            mere_statistics: true,
            quality: Some(Quality::default()),
            stability: Some(Stability::default()),
        }
    }
}

fn yes() -> bool {
    true
}

impl Rejection {
    /// Whether the tests are possible.
    ///
    /// # Errors
    /// As [`Self::problems`], the first.
    pub fn check(&self) -> Result<(), Failure> {
        self.problems().into_iter().next().map_or(Ok(()), |problem| Err(problem.into()))
    }

    /// Every option that is not possible.
    pub fn problems(&self) -> Vec<Impossible> {
        let mut problems = vec![];
        let mut refuse = |key, what: &str, value: f64, expected: &str| {
            let message = format!("{what} of {value} is not possible");
            problems.push(Impossible::new(key, message, format!("give {expected}")));
        };
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        if let Some(Quality { steps, accuracy }) = self.quality {
            if steps == 0 {
                let expected = "1 or more, or leave the quality test out";
                refuse("quality.steps", "a number of training steps", 0.0, expected);
            }
            if !(0.0..=1.0).contains(&accuracy) {
                refuse("quality.accuracy", "an accuracy", accuracy, "a share from 0 to 1, such as 0.2");
            }
        }
        if let Some(Stability { step_size, limit, .. }) = self.stability {
            if !is_positive(step_size) {
                refuse("stability.step_size", "a step size", step_size, "a positive number, such as 0.1");
            }
            if !is_positive(limit) {
                refuse("stability.limit", "a limit", limit, "a positive number, such as 1e8");
            }
        }
        problems
    }
}

/// What can be chosen about the quality test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// Steps of training.
    pub steps: usize,
    /// The least accuracy after them, 0 to 1.
    pub accuracy: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { steps: 100, accuracy: 0.2 }
    }
}

/// One test of one layer, with its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// The kind of test.
    pub test: Reason,
    /// The network it was made in; nothing for structure.
    pub anchor: Option<Anchor>,
    /// Whether the layer passes.
    pub passed: bool,
    /// What was found, in words.
    pub detail: String,
    /// The figures.
    pub figures: Figures,
    /// Seconds it took.
    pub seconds: f64,
}

/// The figures of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figures {
    /// Structure has none.
    None,
    /// Quality: the training so far.
    Score(Score),
    /// Stability.
    Ascent(Ascent),
}

/// What is wrong with the structure of a layer, if anything, as far as the graph alone tells: what a search looks
/// at before it proposes a layer, and a probe before it trains one.
pub fn structure(layer: &Layer, rejection: &Rejection) -> Option<String> {
    let of_output = normact_search::structure(&layer.dag, rejection.mere_statistics).map(str::to_owned);
    of_output.or_else(|| degenerate(layer, rejection))
}

/// The part of [`structure`] that is not about what the layer computes but about how: a moment that is degenerate,
/// unless these are welcome.
pub(crate) fn degenerate(layer: &Layer, rejection: &Rejection) -> Option<String> {
    if !rejection.degenerate {
        return None;
    }
    findings(&layer.dag).iter().find_map(|finding| match finding {
        Finding::DegenerateMoment { node } => Some(format!(
            "node {} is a moment of a value that does not vary along the axes averaged over",
            node.index()
        )),
        Finding::IgnoresInput
        | Finding::Constant { .. }
        | Finding::DivisionByZero { .. }
        | Finding::ExpOverflow { .. } => None,
    })
}

/// [`structure`] as a test.
pub fn test_structure(layer: &Layer, rejection: &Rejection) -> Test {
    let start = Instant::now();
    let problem = structure(layer, rejection);
    let passed = problem.is_none();
    let fine = if rejection.degenerate {
        "the output depends on the input, and no moment is degenerate"
    } else {
        "the output depends on the input"
    };
    Test {
        test: Reason::Structure,
        anchor: None,
        passed,
        detail: problem.unwrap_or_else(|| fine.to_owned()),
        figures: Figures::None,
        seconds: start.elapsed().as_secs_f64(),
    }
}

/// Trains for the first steps and looks at the accuracy.
pub(super) fn test_quality(training: &mut Training<'_>, options: &Quality) -> Result<Test, Failure> {
    training.advance(options.steps)?;
    let score = training.score()?;
    let passed = score.diverged.is_none() && score.loss.is_some() && score.accuracy >= options.accuracy;
    let detail = match (score.diverged, score.loss) {
        (Some(step), _) => format!("the loss is not finite in step {step}"),
        (None, None) => format!("the loss of the measured images is not finite after {} steps", score.steps),
        (None, Some(loss)) => format!(
            "{:.1} % of the measured images right after {} steps (loss {loss:.3}; at least {:.1} % are needed)",
            score.accuracy * 100.0,
            score.steps,
            options.accuracy * 100.0
        ),
    };
    let (anchor, seconds) = (Some(score.anchor), score.seconds);
    Ok(Test { test: Reason::Quality, anchor, passed, detail, seconds, figures: Figures::Score(score) })
}

/// Raises the norm of the gradient.
pub(super) fn test_stability(
    anchor: &Anchor,
    layer: &Layer,
    task: &Task<'_>,
    options: &Stability,
    seed: u64,
) -> Result<Test, Failure> {
    let start = Instant::now();
    let ascent = stability(anchor, layer, task, options, seed)?;
    let Ascent { steps, first_norm, largest_norm, end } = ascent.clone();
    let detail = match (first_norm, end) {
        (None, _) => "the gradient's norm is not finite at the initial weights".to_owned(),
        (Some(first), AscentEnd::Stable) => {
            format!("the gradient's norm is {first:.3} at first and at most {largest_norm:.3e} in {steps} steps")
        }
        (Some(first), AscentEnd::PassedLimit) => format!(
            "the gradient's norm rose from {first:.3} to {largest_norm:.3e} in {steps} steps and passed {:e}",
            options.limit
        ),
        (Some(first), AscentEnd::NotFinite) => {
            format!("the gradient's norm rose from {first:.3} and is not finite after {steps} steps")
        }
    };
    Ok(Test {
        test: Reason::Stability,
        anchor: Some(*anchor),
        passed: end == AscentEnd::Stable,
        detail,
        figures: Figures::Ascent(ascent),
        seconds: start.elapsed().as_secs_f64(),
    })
}
