//! The stability test: how large the gradient of the loss can become when the weights of the
//! convolutions are moved so as to make it large (Liu et al. 2020, section 4.3).
//!
//! With `g(w)` the gradient of the loss with respect to those weights and `H` its Hessian, the gradient
//! of the norm is
//!
//! ```text
//! d|g| / dw = H g / |g|
//! ```
//!
//! Burn's autodiff gives first derivatives only, so the product of the Hessian and the unit vector
//! `u = g / |g|` is a central difference of two gradients:
//!
//! ```text
//! H u ~ (g(w + h u) - g(w - h u)) / 2h
//! ```
//!
//! `h` is 3e-5 of the norm of `w`. The loss of these networks is strongly curved: at 1e-3 the difference
//! is off by a half and more, while from 1e-4 to 1e-5 it agrees to a few per cent and less with the measured
//! slope of the norm; below, rounding in f32 takes over. A step costs three gradients, and like
//! any step of a fixed size it can lead past a maximum. The vectors are on the host, where sums are in f64: their size is that of the weights,
//! which is little beside the activations of a batch.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use normact_ir::Layer;
use serde::{Deserialize, Serialize};

use super::task::{Batch, Task};
use super::training::classify;
use crate::Failure;
use crate::anchors::{Anchor, Ends, Network};

/// What can be chosen about the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stability {
    /// Most steps of the ascent.
    pub steps: usize,
    /// What a step multiplies the gradient of the norm with.
    pub step_size: f64,
    /// The norm that is too large.
    pub limit: f64,
}

impl Default for Stability {
    fn default() -> Self {
        Self { steps: 100, step_size: 0.1, limit: 1e8 }
    }
}

/// The course of an ascent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ascent {
    /// Steps taken.
    pub steps: usize,
    /// The norm of the gradient at the initial weights; nothing where it is not finite.
    pub first_norm: Option<f64>,
    /// The largest finite norm that was met.
    pub largest_norm: f64,
    /// How it ended.
    pub end: AscentEnd,
}

/// How an ascent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AscentEnd {
    /// All steps are done and the norm stayed within the limit.
    Stable,
    /// The norm passed the limit.
    PassedLimit,
    /// The norm is not a finite number.
    NotFinite,
}

/// The test of `layer` in `anchor`, at the initial weights and on the first batch of `seed`.
///
/// # Errors
/// The layer or the network cannot be built, or the device fails.
pub(super) fn stability(
    anchor: &Anchor,
    layer: &Layer,
    task: &Task<'_>,
    options: &Stability,
    seed: u64,
) -> Result<Ascent, Failure> {
    let mut network = Network::new(anchor, layer, Ends::of(task.dataset()), seed, task.device())?.train();
    let samples = task.training_samples(seed).next().unwrap_or_default();
    let batch = task.training_batch(&samples, anchor, &task.device().clone().autodiff());
    let start = Collect::from(&network, None)?;
    ascend(start, options, &mut |weights| {
        network = network.clone().map(&mut Replace { values: weights });
        gradient(&network, &batch)
    })
}

/// The gradient of some loss at given weights.
type Slopes<'a> = dyn FnMut(&[f32]) -> Result<Vec<f32>, Failure> + 'a;

/// Moves `weights` uphill on the norm of the gradient that `gradient` gives.
fn ascend(mut weights: Vec<f32>, options: &Stability, gradient: &mut Slopes<'_>) -> Result<Ascent, Failure> {
    let mut ascent = Ascent { steps: 0, first_norm: None, largest_norm: 0.0, end: AscentEnd::Stable };
    loop {
        let current = gradient(&weights)?;
        let length = norm(&current);
        if !length.is_finite() {
            return Ok(Ascent { end: AscentEnd::NotFinite, ..ascent });
        }
        ascent.first_norm.get_or_insert(length);
        ascent.largest_norm = ascent.largest_norm.max(length);
        if length > options.limit {
            return Ok(Ascent { end: AscentEnd::PassedLimit, ..ascent });
        }
        // At a norm of 0 there is no direction that raises it at once.
        if ascent.steps == options.steps || length == 0.0 {
            return Ok(ascent);
        }
        let uphill = norm_gradient(&weights, &current, length, gradient)?;
        weights = moved(&weights, &uphill, options.step_size);
        ascent.steps += 1;
    }
}

/// The gradient of the norm of the gradient, `H g / |g|`.
fn norm_gradient(
    weights: &[f32],
    current: &[f32],
    length: f64,
    gradient: &mut Slopes<'_>,
) -> Result<Vec<f32>, Failure> {
    const RELATIVE_STEP: f64 = 3e-5;
    let step = RELATIVE_STEP * norm(weights).max(f64::from(f32::MIN_POSITIVE));
    let ahead = gradient(&moved(weights, current, step / length))?;
    let behind = gradient(&moved(weights, current, -step / length))?;
    let difference = |(ahead, behind): (&f32, &f32)| ((f64::from(*ahead) - f64::from(*behind)) / (2.0 * step)) as f32;
    Ok(ahead.iter().zip(&behind).map(difference).collect())
}

fn moved(weights: &[f32], direction: &[f32], by: f64) -> Vec<f32> {
    weights.iter().zip(direction).map(|(weight, slope)| (f64::from(*weight) + by * f64::from(*slope)) as f32).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

/// The gradient of the loss with respect to the weights of convolutions, in the order of the network.
fn gradient(network: &Network, batch: &Batch) -> Result<Vec<f32>, Failure> {
    let (_, loss) = classify(network, batch);
    Collect::from(network, Some(&loss.backward()))
}

/// Collects the weights of convolutions, or their gradients, one after the other.
struct Collect<'a> {
    gradients: Option<&'a Gradients>,
    parts: Vec<Tensor<1>>,
}

impl<'a> Collect<'a> {
    fn from(network: &Network, gradients: Option<&'a Gradients>) -> Result<Vec<f32>, Failure> {
        let mut collect = Self { gradients, parts: Vec::new() };
        network.visit(&mut collect);
        Tensor::cat(collect.parts, 0)
            .try_into_vec_as()
            .map_err(|error| Failure::new(format!("the device failed while computing a gradient: {error}")))
    }
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !is_convolution::<D>() {
            return;
        }
        let weights = param.val();
        let values = match self.gradients {
            None => weights.inner(),
            Some(gradients) => weights.grad(gradients).unwrap_or_else(|| weights.inner().zeros_like()),
        };
        self.parts.push(values.flatten(0, D - 1));
    }
}

/// Puts values in the place of the weights of convolutions.
struct Replace<'a> {
    values: &'a [f32],
}

impl ModuleMapper for Replace<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_convolution::<D>() {
            return param;
        }
        let (id, weights, mapper) = param.consume();
        let weights = weights.inner();
        let (values, rest) = self.values.split_at(weights.dims().iter().product());
        self.values = rest;
        let data = TensorData::new(values.to_vec(), weights.dims());
        let moved: Tensor<D> = Tensor::from_data(data, &weights.device());
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

/// Weights of rank 4 are those of convolutions; the others are matrices and values per channel.
fn is_convolution<const D: usize>() -> bool {
    D == 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::Architecture;
    use crate::data::digits;
    use crate::device::{self, DeviceChoice};
    use crate::fitness::TaskConfig;
    use crate::load;

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance * expected.abs(), "found {found}, expected {expected}");
    }

    #[test]
    fn the_norm_s_gradient_is_that_of_calculus() {
        // Of sum(a w^4 / 12) the gradient is a w^3 / 3 and the Hessian a w^2 on the diagonal.
        let (weights, scale) = ([0.5_f32, -1.0, 2.0, 0.25], [3.0_f32, 1.0, -2.0, 5.0]);
        let slopes = |w: &[f32]| w.iter().zip(scale).map(|(w, a)| a * w.powi(3) / 3.0).collect::<Vec<f32>>();
        let current = slopes(&weights);
        let length = norm(&current);
        let found = norm_gradient(&weights, &current, length, &mut |w| Ok(slopes(w))).unwrap();
        for ((w, a), found) in weights.into_iter().map(f64::from).zip(scale.map(f64::from)).zip(found) {
            close(f64::from(found), a * w * w * (a * w.powi(3) / 3.0) / length, 0.01);
        }
    }

    #[test]
    fn an_ascent_goes_as_far_as_its_steps_and_its_limit() {
        // Of 2 w^2 the gradient is 4 w, and the gradient of its norm 4: each step of 0.1 adds 0.4 to w.
        let ascend_from = |start: f32, options: Stability| {
            ascend(vec![start], &options, &mut |w| Ok(w.iter().map(|w| 4.0 * w).collect())).unwrap()
        };
        let ascent = ascend_from(1.0, Stability { steps: 10, ..Stability::default() });
        assert_eq!((ascent.steps, ascent.first_norm, ascent.end), (10, Some(4.0), AscentEnd::Stable));
        close(ascent.largest_norm, 4.0 * (1.0 + 10.0 * 0.4), 0.02);

        let ascent = ascend_from(-1.0, Stability { limit: 8.0, ..Stability::default() });
        assert_eq!((ascent.steps, ascent.end), (3, AscentEnd::PassedLimit));
        let ascent = ascend_from(f32::NAN, Stability::default());
        assert_eq!((ascent.steps, ascent.first_norm, ascent.end), (0, None, AscentEnd::NotFinite));
        let ascent = ascend_from(0.0, Stability::default());
        assert_eq!((ascent.steps, ascent.end), (0, AscentEnd::Stable));
    }

    #[test]
    fn in_a_network_a_small_step_raises_the_norm_as_its_gradient_says() {
        let (seed, dataset, device) = (5, digits::load(), device::open(DeviceChoice::Cpu).unwrap());
        let task = Task::new(&dataset, TaskConfig::for_dataset(&dataset), &device).unwrap();
        let layer = load::layer("evonorm_s0", &[]).unwrap();
        for architecture in Architecture::ALL {
            let anchor = Anchor { width: 0.05, depth: 0.01, ..Anchor::small(architecture) };
            let mut network = Network::new(&anchor, &layer, Ends::of(&dataset), seed, task.device()).unwrap().train();
            let samples = task.training_samples(seed).next().unwrap();
            let batch = task.training_batch(&samples, &anchor, &device.device.clone().autodiff());
            let start = Collect::from(&network, None).unwrap();
            let mut at = |weights: &[f32]| {
                network = network.clone().map(&mut Replace { values: weights });
                gradient(&network, &batch)
            };
            let current = at(&start).unwrap();
            assert_eq!(start.len(), current.len());
            let uphill = norm_gradient(&start, &current, norm(&current), &mut at).unwrap();
            // Along the gradient itself the slope is its norm.
            let slope = norm(&uphill);
            let step = 1e-5 * norm(&start) / slope;
            let mut norm_at = |by: f64| norm(&at(&moved(&start, &uphill, by)).unwrap());
            let measured = (norm_at(step) - norm_at(-step)) / (2.0 * step * slope);
            assert!(slope > 1.0, "{architecture:?}, seed {seed}: slope {slope}");
            close(measured, slope, 0.02);
        }
    }
}
